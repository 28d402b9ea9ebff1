"""``trainer.max_time``: the learning rate has come down when the time is up, and the run ends as any other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from finetune.model import ImageClassifier
from tests.engine.conftest import train


def test_the_cosine_ends_with_the_time_and_the_run_is_whole(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []
    plain = ImageClassifier.on_train_batch_start

    def watch(self: ImageClassifier, batch: Any, batch_idx: int) -> None:
        plain(self, batch, batch_idx)
        rate = self.optimizers(use_pl_optimizer=False).param_groups[-1]["lr"]  # type: ignore[union-attr]
        seen.append((time.monotonic(), rate))

    monkeypatch.setattr(ImageClassifier, "on_train_batch_start", watch)
    options = ("freeze=none", "trainer.max_epochs=100000", "trainer.max_time=00:00:00:03", "scheduler.warmup_epochs=0")
    result = train(tmp_path / "timed", f"data.path={images}", *options)
    began, first = seen[0]
    ended, last = seen[-1]
    assert result["status"] == "completed"
    assert 2 < ended - began < 6
    assert first > 0.99e-3
    assert last < 0.1e-3  # a hundred thousand epochs alone would have left it where it was
    half_way = next(rate for moment, rate in seen if moment - began > (ended - began) / 2)
    assert half_way == pytest.approx(0.5e-3, rel=0.35)


def test_time_that_is_longer_than_the_epochs_changes_nothing(tmp_path: Path, images: Path) -> None:
    options = (f"data.path={images}", "freeze=none", "trainer.max_epochs=2")
    plain = train(tmp_path / "plain", *options)
    timed = train(tmp_path / "timed", *options, "trainer.max_time=01:00:00:00")
    assert plain["val"] == timed["val"]
