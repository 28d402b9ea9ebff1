"""refit=true: what val chose, trained once more on train and val, blind to test, never half done."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import choosing
from finetune import refit as module
from finetune.callback.finite import FiniteNumbers
from finetune.checkpoint import read_payload
from finetune.errors import ConfigError, Interrupted
from tests.conftest import write_image_folder
from tests.engine.conftest import Moment, assert_equal, signal_at, train

SOLVED = (
    *("freeze=lp_ft", "freeze.solve_head=true", "trainer.max_epochs=2", "transform=light"),
    *("optimizer.lr=0.003", "monitor=val/loss"),
)
SCRATCH = ("freeze=none", "transform=light", "callback=ema", "optimizer.lr=0.003")


@pytest.fixture(scope="module")
def split_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train, val and test of three classes."""
    folders = [f"{split}/{name}" for split in ("train", "val", "test") for name in ("amber", "blue", "coral")]
    return write_image_folder(tmp_path_factory.mktemp("refit") / "images", classes=folders, n=5, size=(40, 40))


def weights(run: Path, name: str = "best.ckpt") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]
    return found


def with_val_trained(split_csv: Path, written: Path) -> Path:
    """The split of a run with val among the training images; test stands in for val."""
    with split_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["split"] = "train" if row["split"] in ("train", "val") else "val"
    with written.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return written


@pytest.mark.parametrize(("monitor", "last"), [("val/loss", True), ("val/balanced_accuracy", False)])
def test_the_refitted_weights_are_those_of_a_run_on_both_that_ends_after_the_epoch_that_val_chose(
    tmp_path: Path, split_images: Path, monitor: str, *, last: bool
) -> None:
    """The second path: a run whose split file says train for val too, stopped by a signal after the same epoch."""
    result = train(tmp_path / "run", f"data.path={split_images}", *SCRATCH, "refit=true", f"monitor={monitor}")
    epochs = result["monitor"]["epoch"] + 1
    assert (epochs == 4) == last
    assert result["refit"] == {
        "images": 30,
        "coefficient": 1.0,
        "epochs": epochs,
        "strength": None,
        "before": "checkpoints/before_refit.ckpt",
    }
    split = with_val_trained(tmp_path / "run/split.csv", tmp_path / "both.csv")
    options = (f"data.path={split_images}", f"data.split_file={split}", *SCRATCH)
    if epochs < 4:
        with signal_at(Moment(epochs, 0)), pytest.raises(Interrupted):
            train(tmp_path / "both", *options)
    else:
        train(tmp_path / "both", *options)
    state = read_payload(tmp_path / "both/checkpoints" / ("previous.ckpt" if epochs < 4 else "last.ckpt"))
    average = next(callback["averages"] for name, callback in state["callbacks"].items() if "EMA" in name)
    assert_equal(weights(tmp_path / "run"), state["state_dict"] | average, "best.ckpt")


def test_the_figures_of_val_are_the_first_run_s_and_those_of_test_the_refitted_one_s(
    tmp_path: Path, split_images: Path
) -> None:
    plain = train(tmp_path / "plain", f"data.path={split_images}", *SOLVED)
    again = train(tmp_path / "again", f"data.path={split_images}", *SOLVED, "refit=true")
    for key in ("val", "monitor", "candidates", "temperature"):
        assert again[key] == plain[key], key
    assert again["test"] != plain["test"]
    assert_equal(weights(tmp_path / "plain"), weights(tmp_path / "again", "before_refit.ckpt"), "before_refit.ckpt")
    before, best = (
        read_payload(tmp_path / "again/checkpoints" / name)["finetune"] for name in ("before_refit.ckpt", "best.ckpt")
    )
    assert best["temperature"] == before["temperature"] == plain["temperature"]
    assert "test" not in before["metrics"]
    assert (before["config"]["refit"], best["config"]["refit"]) == (False, True)
    assert best["refit"] == again["refit"]
    assert best["refit"]["strength"] == read_payload(tmp_path / "again/checkpoints/probe.ckpt")["finetune"]["strength"]
    assert "test figures are those of the new weights" in again["kept"][-1]


def test_the_refitted_weights_lie_between_a_probe_and_a_network_that_are_both_refitted(
    tmp_path: Path, split_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for coefficients in ((0.0, 0.5), (0.0, 1.0), (0.0,)):
        monkeypatch.setattr(choosing, "COEFFICIENTS", coefficients)
        directory = tmp_path / str(coefficients[-1])
        result = train(directory, f"data.path={split_images}", *SOLVED, "refit=true")
        assert result["refit"]["coefficient"] == coefficients[-1]
        found[coefficients[-1]] = weights(directory)
    assert_equal(
        found[0.5],
        {
            name: torch.lerp(value, found[1.0][name], 0.5) if value.is_floating_point() else value
            for name, value in found[0.0].items()
        },
        "half of the way",
    )


def test_a_refit_never_looks_at_test(tmp_path: Path, split_images: Path) -> None:
    train(tmp_path / "plain", f"data.path={split_images}", *SOLVED, "refit=true")
    trapped = shutil.copytree(split_images, tmp_path / "trapped")  # every test label is wrong now
    (trapped / "test/amber").rename(trapped / "test/parked")
    (trapped / "test/blue").rename(trapped / "test/amber")
    (trapped / "test/coral").rename(trapped / "test/blue")
    (trapped / "test/parked").rename(trapped / "test/coral")
    train(tmp_path / "other", f"data.path={trapped}", *SOLVED, "refit=true")
    assert_equal(weights(tmp_path / "plain"), weights(tmp_path / "other"), "best.ckpt")


@pytest.mark.parametrize("options", [SOLVED, ("freeze=head_only", "freeze.solve_head=true")], ids=["tuned", "probe"])
def test_a_run_interrupted_in_its_refit_keeps_its_own_best_and_ends_as_the_uninterrupted_one(
    tmp_path: Path, split_images: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", f"data.path={split_images}", *options, "refit=true")
    arguments = (f"data.path={split_images}", *options, "refit=true")

    def stop(*_: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(module, "place" if options is SOLVED else "solve_head", stop)
        with pytest.raises(Interrupted):
            train(tmp_path / "stopped", *arguments)
    assert not (tmp_path / "stopped/checkpoints/tuned.ckpt").exists()
    best = tmp_path / "stopped/checkpoints/best.ckpt"
    assert not best.exists() or "refit" not in read_payload(best)["finetune"]
    assert json.loads((tmp_path / "stopped/result.json").read_text())["status"] == "interrupted"
    for _ in range(2):  # to its end, and once more from there
        resumed = train(tmp_path / "stopped", *arguments, "resume=auto")
        for key in ("monitor", "candidates", "val", "test", "refit"):
            assert resumed[key] == whole[key], key
        for name in ("best.ckpt", "before_refit.ckpt", "probe.ckpt"):
            assert_equal(weights(tmp_path / "whole", name), weights(tmp_path / "stopped", name), name)


def test_a_signal_in_the_refit_s_training_leaves_at_once(
    tmp_path: Path, split_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def on_train_epoch_end(self: Any, trainer: Any, module: Any) -> None:
        if trainer.limit_val_batches == 0:
            seen.append(trainer.current_epoch)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(FiniteNumbers, "on_train_epoch_end", on_train_epoch_end, raising=False)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", f"data.path={split_images}", *SCRATCH, "refit=true")
    assert seen == [0]
    assert json.loads((tmp_path / "run/result.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("trainer.max_time=00:00:10:00", r"trainer\.max_time=00:00:10:00 ends them by the clock"),
        ("trainer=ddp_cpu trainer.devices=2", "trains in one process, and this run has 2"),
    ],
)
def test_what_a_refit_cannot_repeat_is_refused(tmp_path: Path, split_images: Path, option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", f"data.path={split_images}", *SCRATCH, "refit=true", *option.split())
