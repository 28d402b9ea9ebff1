"""What goes wrong in the middle of a run: numbers, disks, files, memory. Nothing unsound is kept, and the message helps."""

from __future__ import annotations

import json
import logging
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.callback.interruption import Interruption
from finetune.checkpoint import PART, read_payload
from finetune.errors import DataError, Interrupted, TrainingError
from finetune.model import ImageClassifier
from tests.conftest import write_image_folder
from tests.engine.conftest import Moment, assert_same_run, exit_code, forked, signal_at, train


def assert_finite(value: Any, where: str) -> None:
    if isinstance(value, torch.Tensor):
        assert not value.is_floating_point() or torch.isfinite(value).all(), where
    elif isinstance(value, dict):
        for key, entry in value.items():
            assert_finite(entry, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            assert_finite(entry, f"{where}[{number}]")


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """What the network gives in one step is NaN, as a broken kernel would make it."""
    forward = ImageClassifier.forward

    def poisoned(self: ImageClassifier, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK = forward(self, images_BCHW)
        return logits_BK * float("nan") if self.training and self.trainer.global_step + 1 == step else logits_BK

    monkeypatch.setattr(ImageClassifier, "forward", poisoned)


def test_nan_at_step_5_stops_there_names_the_files_and_reaches_no_checkpoint(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, step=5)
    with pytest.raises(TrainingError, match=r"step 5 \(epoch 1\).*(amber|blue|coral)/\d+\.png.*max_skipped_steps=10"):
        train(tmp_path / "run", f"data.path={images}", "freeze=none", "checkpoint_every_n_steps=1")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    found = sorted((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    assert [path.name for path in found] == ["last.ckpt", "previous.ckpt"]
    assert read_payload(found[0])["global_step"] == 4
    for path in found:
        assert_finite(read_payload(path), path.name)


def test_a_skipped_nan_leaves_a_finite_run(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, step=5)
    overrides = (f"data.path={images}", "freeze=none", "max_skipped_steps=1", "callback=[ema]", "trainer.max_epochs=2")
    result = train(tmp_path / "run", *overrides)
    assert result["status"] == "completed"
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
        assert_finite(read_payload(path), path.name)
    assert "nan" not in (tmp_path / "run" / "metrics.csv").read_text()


def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_resumes_exactly(tmp_path: Path, images: Path) -> None:
    overrides = (f"data.path={images}", "freeze=none", "trainer.max_epochs=3")
    train(tmp_path / "whole", *overrides)

    def work() -> None:
        def on_train_epoch_start(self: object, trainer: Any, module: object) -> None:
            if trainer.current_epoch == 1:  # a limit on the size of files, from the second epoch on
                resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        Interruption.on_train_epoch_start = on_train_epoch_start  # type: ignore[method-assign]
        train(tmp_path / "run", *overrides)

    assert exit_code(forked(work, tmp_path / "log"), 120) == 1
    assert "could not be written (File too large" in (tmp_path / "log").read_text()
    assert "resume=auto" in (tmp_path / "log").read_text()
    assert read_payload(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 5
    assert not list((tmp_path / "run").rglob(f"*{PART}"))
    train(tmp_path / "run", *overrides, "resume=auto")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_disk_that_cannot_hold_the_checkpoints_is_refused_at_the_start(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2_000_000})())
    with pytest.raises(TrainingError, match=r"2 MiB free.*need up to \d+ MiB.*hydra\.run\.dir"):
        train(tmp_path / "run", f"data.path={images}", "freeze=none")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_damaged_newest_checkpoint_is_passed_over_aloud_and_the_run_ends_the_same(
    tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = (f"data.path={images}", "freeze=lp_ft", "head.dropout=0.2")
    train(tmp_path / "whole", *overrides)
    with signal_at(Moment(2, 1)), pytest.raises(Interrupted):
        train(tmp_path / "run", *overrides)
    newest = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 3] ^= 4
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "run", *overrides, "resume=auto")
    assert "resume=auto passes over" in caplog.text
    assert "last.ckpt was damaged or changed" in caplog.text
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_images_that_break_in_mid_run_are_named_once_and_too_many_stop_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = write_image_folder(tmp_path / "images", n=8, size=(40, 40))

    class Broken:
        def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
            def on_train_epoch_start(callback: object, trainer: Any, module: object) -> None:
                if trainer.current_epoch == 1:
                    table = trainer.datamodule.table
                    for row in table.rows("train")[:count]:
                        table.path(int(row)).write_bytes(b"\x89PNG\r\n\x1a\n no more")

            monkeypatch.setattr(Interruption, "on_train_epoch_start", on_train_epoch_start, raising=False)

    overrides = (f"data.path={images}", "freeze=none", "cache=none")
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        Broken(patch, 1)
        assert train(tmp_path / "run", *overrides, "data.max_bad_fraction=0.1")["status"] == "completed"
    assert caplog.text.count("cannot be read any more and is left out") == 1, "in three epochs, once"
    images = write_image_folder(tmp_path / "images", n=8, size=(40, 40))
    with (  # noqa: PT012 - the files are broken inside
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(DataError, match=r"images cannot be read any more.*0\.1"),
    ):
        Broken(patch, 4)
        train(tmp_path / "stopped", *overrides, "data.max_bad_fraction=0.1")
    assert_finite(read_payload(tmp_path / "stopped" / "checkpoints" / "last.ckpt"), "last.ckpt")


def test_out_of_memory_says_what_to_lower(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, batch: object, batch_idx: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(ImageClassifier, "training_step", full)
    with pytest.raises(TrainingError, match=r"data\.batch_size=4 and data\.image_size=32.*Take data\.batch_size=2"):
        train(tmp_path / "run", f"data.path={images}", "freeze=none")
