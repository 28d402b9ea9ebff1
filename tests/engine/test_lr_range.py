"""optimizer.lr=auto: where the loss falls most steeply, and a run that cannot be told from one with the number typed."""

from __future__ import annotations

import csv
import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from finetune import lr_range, training
from finetune.errors import ConfigError, Interrupted, TrainingError
from finetune.lr_range import climb, find_lr, steepest
from finetune.model import ImageClassifier
from tests.engine.conftest import Moment, assert_equal, assert_same_run, signal_at, train

AUTO = "optimizer.lr=auto"
TWO = "trainer.max_epochs=2"
SOLVED = ("freeze=lp_ft", "freeze.solve_head=true", "trainer.max_epochs=2", "transform=light")


def test_the_rate_is_where_the_loss_falls_furthest_to_a_new_low() -> None:
    # falls by 1, 3, 1, rises by 5, falls by 6 (to 0 below the lowest before: by 1 only)
    assert steepest([9.0, 8.0, 5.0, 4.0, 9.0, 3.0]) == 2
    with pytest.raises(TrainingError, match=r"fell at none of 3 rates from 1e-05 on.*optimizer\.lr=0\.001"):
        steepest([1.0, 1.0, 2.0])


@pytest.mark.parametrize("last", [8.1, math.nan, math.inf])
def test_the_climb_ends_where_the_loss_diverges(last: float) -> None:
    losses = iter([3.0, 2.0, 7.9, last])
    curve = climb(lambda _: next(losses), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert curve == ((1.0, 2.0, 3.0), (3.0, 2.0, 7.9))


@pytest.mark.parametrize(
    "options",
    [
        ("freeze=none", "transform=standard", "transform.mixup_alpha=0.2", TWO),
        (*SOLVED, "callback=ema", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1"),
        ("freeze=head_only", "head=mlp", "head.dropout=0.2", "optimizer=sgd", TWO),
    ],
    ids=["from scratch, live statistics", "after a solved head", "on stored features"],
)
def test_a_run_that_finds_its_rate_is_the_run_with_that_rate_typed_to_the_last_bit(
    tmp_path: Path, images: Path, options: tuple[str, ...]
) -> None:
    found = train(tmp_path / "found", f"data.path={images}", AUTO, *options)
    rate = found["learning_rate"]
    assert 1e-5 < rate < 10
    typed = train(tmp_path / "typed", f"data.path={images}", f"optimizer.lr={rate}", *options)
    assert_same_run(tmp_path / "found", tmp_path / "typed")
    assert found["val"] == typed["val"]
    files = {name: {path.name for path in (tmp_path / name).rglob("*")} for name in ("found", "typed")}
    assert files["found"] - files["typed"] == {"lr_range.csv"}
    one, other = (OmegaConf.load(tmp_path / name / "config.yaml") for name in ("found", "typed"))
    assert one == other
    cards = [torch.load(tmp_path / name / "checkpoints/best.ckpt", weights_only=True)["finetune"] for name in files]
    assert_equal(cards[0]["config"], cards[1]["config"], "the configuration in best.ckpt")
    with (tmp_path / "found/lr_range.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert min(abs(tried / rate - 1) for tried in rates) < 0.05


def test_the_test_steps_as_the_run_would_and_leaves_everything_as_it_was(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[float]] = {}

    def everything(model: ImageClassifier) -> list[object]:
        generators = [torch.get_rng_state(), *np.random.get_state()[1:], random.getstate()]  # noqa: NPY002 - the global one is watched
        named = [model.network.state_dict(), {name: p.grad for name, p in model.named_parameters()}]
        flags = [p.requires_grad for p in model.parameters()] + [m.training for m in model.modules()]
        return [*(g.tolist() if isinstance(g, np.ndarray) else g for g in generators), *named, flags]

    def watched(model: ImageClassifier, data: object, setting: object) -> object:
        configure = model.configure_optimizers
        optimizers: list[torch.optim.Optimizer] = []
        monkeypatch.setattr(model, "configure_optimizers", lambda: optimizers.append(configure()) or optimizers[0])
        before = [value.copy() if hasattr(value, "copy") else value for value in everything(model)]
        weights = {name: value.clone() for name, value in model.network.state_dict().items()}
        result = find_lr(model, data, setting)  # type: ignore[arg-type]
        before[-3] = weights
        assert_equal(before, everything(model), "the model and the generators")
        monkeypatch.setattr(model, "configure_optimizers", configure)
        seen["rates"] = [group["lr"] / group["lr_scale"] for group in optimizers[0].param_groups]
        moved = optimizers[0].state[optimizers[0].param_groups[0]["params"][0]]["step"]
        seen["steps"] = [float(moved)]
        return result

    monkeypatch.setattr(training, "find_lr", watched)
    train(tmp_path / "run", f"data.path={images}", AUTO, *SOLVED)
    tried = len((tmp_path / "run/lr_range.csv").read_text().splitlines()) - 1
    last = np.geomspace(1e-5, 10, 30)[int(seen["steps"][0]) - 1]
    assert seen["steps"][0] - tried in (0, 1)  # the one that diverged is not in the curve
    assert seen["rates"] == pytest.approx([0.3 * last] * len(seen["rates"]))  # lp_ft's factor


@pytest.fixture
def only_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The rates that tests found."""
    found: list[float] = []

    def counted(*arguments: object) -> object:
        result = lr_range.find_lr(*arguments)  # type: ignore[arg-type]
        found.append(result[0])
        return result

    monkeypatch.setattr(training, "find_lr", counted)
    return found


def test_a_resumed_run_keeps_its_rate_and_ends_as_the_uninterrupted_one(
    tmp_path: Path, images: Path, only_once: list[float]
) -> None:
    train(tmp_path / "whole", f"data.path={images}", AUTO, *SOLVED)
    with signal_at(Moment(1, 2)), pytest.raises(Interrupted):
        train(tmp_path / "stopped", f"data.path={images}", AUTO, *SOLVED)
    assert len(only_once) == 2
    resumed = train(tmp_path / "stopped", f"data.path={images}", AUTO, *SOLVED, "resume=auto")
    assert len(only_once) == 2
    assert resumed["learning_rate"] == only_once[0] == OmegaConf.load(tmp_path / "stopped/config.yaml").optimizer.lr
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_solved_head_alone_says_that_there_is_no_rate_to_find(
    tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = train(tmp_path / "run", f"data.path={images}", AUTO, "freeze=head_only", "freeze.solve_head=true", TWO)
    assert "lr        auto: the solved head takes no epoch, so there is no rate to find" in caplog.messages
    assert math.isnan(result["learning_rate"])
    assert not (tmp_path / "run/lr_range.csv").exists()


def test_several_processes_are_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr=auto is found in one process, and this run has 2"):
        train(tmp_path / "run", f"data.path={images}", AUTO, "freeze=none", "trainer=ddp_cpu", "trainer.devices=2")
