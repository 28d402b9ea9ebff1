"""A run that was stopped and resumed is the uninterrupted one, bit for bit: weights, optimizer, averages, metrics.

Every schedule meets every scheduler, with dropout, mixup, augmentation and averaged weights. A chain is one run that
is stopped at the first point, resumed, stopped at the next, and so on; the number of workers changes on the way.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.errors import Interrupted
from finetune.model import ImageClassifier
from finetune.random_keys import derive_seed
from tests.engine.conftest import Moment, assert_same_run, interrupted_run, signal_at, train

SCHEDULES = ("none", "head_only", "lp_ft", "gradual", "surgical", "norm_only")
SCHEDULERS = ("cosine", "one_cycle", "constant")
RANDOM = ("head.dropout=0.2", "callback=[ema]", "transform.mixup_alpha=0.2", "transform=standard")
BATCHES = 5  # 18 training images, four at most in a batch
POINTS = (
    Moment(0, 0),
    *(Moment(1, batch) for batch in range(BATCHES)),
    Moment(1, 0, validating=True),
    Moment(1, -1, validating=True),
    Moment(2, 0),
    Moment(2, 1, validating=True),
    Moment(2, -1, validating=True),
    Moment(3, BATCHES - 1),
    Moment(3, 1, validating=True),
)


def chain(directory: Path, points: tuple[Moment, ...], *overrides: str) -> None:
    """Run to the end, stopped at every one of ``points``, twice with 2 workers, else with none."""
    for number, moment in enumerate(points):
        workers = f"data.num_workers={2 * (number in (1, 7))}"
        with signal_at(moment), pytest.raises(Interrupted):
            train(directory, *overrides, workers, "resume=auto")
        last = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)
        assert last["epoch"] == moment.epoch, "it stopped there, not at the end"
    train(directory, *overrides, "resume=auto")


def test_a_run_stopped_in_a_frozen_phase_in_the_thawing_epoch_and_in_validation_is_the_uninterrupted_one(
    tmp_path: Path, images: Path
) -> None:
    overrides = (f"data.path={images}", "freeze=lp_ft", *RANDOM)
    train(tmp_path / "whole", *overrides)
    chain(
        tmp_path / "stopped", (Moment(0, -1, validating=True), Moment(1, 2), Moment(2, 0, validating=True)), *overrides
    )
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_half_an_accumulation_is_finished_before_a_signal_is_followed(tmp_path: Path, images: Path) -> None:
    overrides = (f"data.path={images}", "freeze=none", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2")
    train(tmp_path / "whole", *overrides)
    chain(tmp_path / "stopped", (Moment(0, 2), Moment(1, 1)), *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "scheduler"), list(product(SCHEDULES, SCHEDULERS)))
def test_every_schedule_under_every_scheduler_resumes_exactly(
    tmp_path: Path, images: Path, schedule: str, scheduler: str
) -> None:
    overrides = (f"data.path={images}", f"freeze={schedule}", f"scheduler={scheduler}", *RANDOM)
    train(tmp_path / "whole", *overrides)
    chain(tmp_path / "stopped", POINTS, *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_every_single_step_of_a_run_is_a_point_where_it_can_stop(tmp_path: Path, images: Path) -> None:
    overrides = (f"data.path={images}", "freeze=gradual", "scheduler=one_cycle", "freeze.l2_sp=0.01", *RANDOM)
    train(tmp_path / "whole", *overrides)
    points = [Moment(*point) for point in product(range(4), range(BATCHES), (False,))]
    points += [Moment(*point) for point in product(range(4), (0, 1, -1), (True,))]
    for point in points:
        interrupted_run(tmp_path / f"{point}", point, *overrides)
        assert_same_run(tmp_path / "whole", tmp_path / f"{point}")


@pytest.mark.slow
def test_a_resnet50_resumes_exactly(tmp_path: Path, images: Path) -> None:
    overrides = (
        f"data.path={images}",
        "backbone.name=resnet50",
        "data.image_size=64",
        "trainer.max_epochs=3",
        "freeze=lp_ft",
        *RANDOM,
    )
    train(tmp_path / "whole", *overrides)
    chain(tmp_path / "stopped", (Moment(0, 3), Moment(1, 1), Moment(1, 0, validating=True), Moment(2, 2)), *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_the_noise_of_a_step_is_its_own_whatever_the_epoch_the_seed_and_the_process(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def recorded(*key: Any) -> int:
        found.append(derive_seed(*key))
        return found[-1]

    monkeypatch.setattr("finetune.model.derive_seed", recorded)
    overrides = (f"data.path={images}", "freeze=none", "trainer.max_epochs=2")
    train(tmp_path / "one", *overrides)
    train(tmp_path / "other", *overrides, "seed=7", f"data.split_file={tmp_path / 'one' / 'split.csv'}")
    monkeypatch.setattr(ImageClassifier, "global_rank", 1)
    train(tmp_path / "second", *overrides)
    assert len(set(found)) == len(found) == 3 * 2 * BATCHES


def test_early_stopping_stops_a_resumed_run_where_it_stops_the_whole_one(tmp_path: Path, images: Path) -> None:
    overrides = (
        f"data.path={images}",
        "freeze=none",
        "callback=[early_stopping]",
        "callback.early_stopping.patience=1",
        "optimizer.lr=1e-9",  # nothing changes, so nothing improves
    )
    train(tmp_path / "whole", *overrides)
    chain(tmp_path / "stopped", (Moment(0, 4), Moment(1, 0, validating=True)), *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    assert len((tmp_path / "whole" / "metrics.csv").read_text().splitlines()) == 1 + 2
