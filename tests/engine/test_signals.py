"""SIGTERM and SIGINT: saved at the next step, left with 143 or 130 within 10 s, resumed to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from types import FrameType

import pytest

from finetune import checkpoint
from finetune.callback.interruption import Interruption
from finetune.model import ImageClassifier
from tests.engine.conftest import TINY, Moment, assert_same_run, exit_code, forked, signal_at, train

MOMENTS = {
    "first batch": Moment(0, 0),
    "training": Moment(2, 1),
    "validation": Moment(1, 0, validating=True),
    "save": Moment(-1, -1),
}


def stopped(directory: Path, overrides: tuple[str, ...], moment: str, number: int) -> int:
    """The exit code of a run that gets the signal ``number`` at ``moment`` and leaves within 10 s of it."""

    arrived = directory.with_suffix(".arrived")

    def work() -> None:
        receive = Interruption._receive

        def timed(self: Interruption, number: int, frame: FrameType | None) -> None:
            arrived.write_text(str(time.monotonic()))
            receive(self, number, frame)

        Interruption._receive = timed  # type: ignore[method-assign]
        if moment == "save":
            write_synced = checkpoint._write_synced

            def write(path: Path, *parts: bytes | memoryview) -> None:
                checkpoint._write_synced = write_synced  # once: a second signal would leave at once
                os.kill(os.getpid(), number)
                write_synced(path, *parts)

            checkpoint._write_synced = write
        with signal_at(MOMENTS[moment], number):
            train(directory, *overrides)

    code = exit_code(forked(work, directory.with_suffix(".log")), 120)
    assert time.monotonic() - float(arrived.read_text()) < 10
    return code


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "number"), list(product(MOMENTS, (signal.SIGTERM, signal.SIGINT))))
def test_a_signal_saves_leaves_with_its_code_and_the_run_resumes_to_the_bit(
    tmp_path: Path, images: Path, moment: str, number: signal.Signals
) -> None:
    overrides = (f"data.path={images}", "freeze=lp_ft", "head.dropout=0.2", "transform.mixup_alpha=0.2")
    assert stopped(tmp_path / "stopped", overrides, moment, number) == 128 + number
    assert json.loads((tmp_path / "stopped" / "result.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "stopped" / "checkpoints" / "last.ckpt").exists()
    train(tmp_path / "stopped", *overrides, "resume=auto")
    train(tmp_path / "whole", *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_second_signal_leaves_at_once(tmp_path: Path, images: Path) -> None:
    begun = tmp_path / "begun"

    def work() -> None:
        def endless(self: object, batch: object, batch_idx: int) -> None:
            begun.touch()
            while True:
                time.sleep(0.05)

        ImageClassifier.training_step = endless  # type: ignore[method-assign, assignment]
        train(tmp_path / "run", f"data.path={images}", "freeze=none")

    process = forked(work, tmp_path / "log")
    for _ in range(1200):
        if begun.exists():
            break
        time.sleep(0.05)
    os.kill(process, signal.SIGTERM)
    time.sleep(0.3)
    assert os.waitpid(process, os.WNOHANG) == (0, 0), "the first one waits for the step to end"
    os.kill(process, signal.SIGTERM)
    assert exit_code(process, 10) == 128 + signal.SIGTERM


def test_a_signal_to_every_process_of_a_run_finds_the_workers_still_working(tmp_path: Path, images: Path) -> None:
    """As SLURM and a terminal send it; torch's worker would die of it, and take the step along."""

    def work() -> None:
        def to_the_group(self: object, trainer: object, module: object, batch: object, batch_idx: int) -> None:
            if batch_idx == 1:
                os.killpg(0, signal.SIGTERM)
                time.sleep(0.5)

        Interruption.on_train_batch_start = to_the_group  # type: ignore[method-assign, assignment]
        train(tmp_path / "run", f"data.path={images}", "freeze=none", "data.num_workers=2")

    assert exit_code(forked(work, tmp_path / "log"), 90) == 128 + signal.SIGTERM, (tmp_path / "log").read_text()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_a_signal_during_the_final_evaluation_of_a_finished_run_leaves_at_once(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune import finish
    from finetune.errors import Interrupted

    def asked_to_leave(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("the signal was not followed")

    overrides = (f"data.path={images}", "freeze=none", "trainer.max_epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(finish, "finish", asked_to_leave)
        for resume in ((), ("resume=auto",)):  # at the end of training, and again in the run that has nothing to train
            with pytest.raises(Interrupted):
                train(tmp_path / "run", *overrides, *resume)
    assert train(tmp_path / "run", *overrides, "resume=auto")["status"] == "completed"


def test_a_command_with_workers_leaves_within_10_s_of_a_signal_to_it_alone(tmp_path: Path, images: Path) -> None:
    """Its workers survive one signal, so they must be told to leave before the process waits for them."""
    tiny = [text for text in TINY if "num_workers" not in text and "max_epochs" not in text]
    options = ("data.num_workers=2", "freeze=none", "trainer.max_epochs=100000", f"data.path={images}")
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune.train", *tiny, *options, f"hydra.run.dir={tmp_path / 'run'}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
    finally:
        process.kill()
