"""kill -9 at any moment: every checkpoint stays whole, at most one save is lost, and the end is the same to the bit.

The runs are forks of this process, which has everything imported. They save after every step, 40 MB each time, with
TMPDIR on another filesystem, where Lightning's own way of saving tore one file in seven.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from finetune.callback.interruption import Interruption
from finetune.checkpoint import PART, newest_whole, read_payload
from tests.engine.conftest import assert_same_run, exit_code, forked, train

KILLS = 20
KILLS_IN_A_SAVE = 5
BIG = ("head=mlp", "head.hidden=30000", "trainer.max_epochs=6", "freeze=gradual", "checkpoint_every_n_steps=1")


def begin(directory: Path, overrides: tuple[str, ...]) -> tuple[int, int]:
    """A run in a fork, and the end of a pipe that tells of every batch that begins how many steps are done."""
    reader, writer = os.pipe()

    def work() -> None:
        os.close(reader)

        def report(self: object, trainer: object, module: object, batch: object, batch_idx: int) -> None:
            os.write(writer, trainer.global_step.to_bytes(4, "big"))  # type: ignore[attr-defined]

        Interruption.on_train_batch_start = report  # type: ignore[method-assign, assignment]
        train(directory, *overrides, "resume=auto")

    process = forked(work, directory.with_suffix(".log"))
    os.close(writer)
    return process, reader


def kill(directory: Path, overrides: tuple[str, ...], delay_s: float, *, in_a_save: bool) -> tuple[int, bool]:
    """Kill a run after ``delay_s`` of training, or of a save; gives the steps that were saved for certain."""
    process, reader = begin(directory, overrides)
    reported = os.read(reader, 4)
    part = directory / "checkpoints" / f"last.ckpt{PART}"
    if in_a_save:
        deadline = time.monotonic() + 60
        while not part.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
    time.sleep(delay_s)
    os.kill(process, signal.SIGKILL)
    assert exit_code(process, 10) == -signal.SIGKILL
    while more := os.read(reader, 4096):
        reported = more[-4:]
    os.close(reader)
    return int.from_bytes(reported, "big"), part.exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_twenty_times_ends_as_if_it_had_never_been(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Path("/dev/shm")
    assert memory.stat().st_dev != tmp_path.stat().st_dev, "the point is a TMPDIR on another filesystem"
    monkeypatch.setenv("TMPDIR", str(memory))
    monkeypatch.setattr("tempfile.tempdir", None)
    overrides = (f"data.path={images}", *BIG, "head.dropout=0.2", "transform.mixup_alpha=0.2")
    train(tmp_path / "whole", *overrides)
    assert 35e6 < (tmp_path / "whole" / "checkpoints" / "last.ckpt").stat().st_size < 60e6

    generator = random.Random(0)
    directory = tmp_path / "killed"
    torn = 0
    for number in range(KILLS):
        in_a_save = number % 2 == 1
        delay_s = generator.uniform(0, 0.02) if in_a_save else generator.uniform(0, 0.25)
        certain, inside = kill(directory, overrides, delay_s, in_a_save=in_a_save)
        torn += inside
        for path in (directory / "checkpoints").glob("*.ckpt"):
            read_payload(path)  # raises where a byte is wrong
        newest, passed_over = newest_whole(directory / "checkpoints", ("last.ckpt", "previous.ckpt"))
        assert not passed_over
        steps = 0 if newest is None else read_payload(newest)["global_step"]
        assert steps >= certain - 1, "more than one save interval was lost"
    assert torn >= KILLS_IN_A_SAVE
    train(directory, *overrides, "resume=auto")
    assert not list(directory.rglob(f"*{PART}"))
    assert_same_run(tmp_path / "whole", directory)
