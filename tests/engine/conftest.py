"""Whole training runs in this process, on generated images, that can be interrupted by a real signal at any moment."""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from finetune.callback.interruption import Interruption
from finetune.config import CONF_DIR
from finetune.errors import FinetuneError, Interrupted
from finetune.run_directory import RunDirectory

TINY = (
    "backbone.name=test_resnet",
    "backbone.weights=none",
    "data.image_size=32",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.max_epochs=4",
    "trainer.precision=32-true",
    "trainer=cpu",
    "logger=csv",
    "report=none",
    "checkpoint_min_interval_s=0",
    "freeze.solve_head=false",
)


class Moment(NamedTuple):
    """When a signal arrives: before training batch ``batch`` of ``epoch``, or in its validation.

    In validation, -1 is the moment after it, before the epoch's checkpoint is written.
    """

    epoch: int
    batch: int
    validating: bool = False


def train(directory: Path, *overrides: str) -> dict[str, Any]:
    """One run in ``directory``, as ``python -m finetune.train`` would do it."""
    from finetune import training

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[*TINY, *overrides])
    directory.mkdir(parents=True, exist_ok=True)
    return training.train(cfg, RunDirectory(directory), {"freeze": "test", "head": "test"})


@contextmanager
def signal_at(moment: Moment, number: int = signal.SIGTERM) -> Iterator[None]:
    """Send this process a real signal at ``moment`` of the run inside."""

    def send(trainer: Any, batch_idx: int, *, validating: bool) -> None:
        if (trainer.current_epoch, batch_idx, validating) == moment:
            os.kill(os.getpid(), number)

    def on_train_batch_start(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        send(trainer, batch_idx, validating=False)

    def on_validation_batch_start(
        self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        send(trainer, batch_idx, validating=True)

    def on_validation_end(self: Any, trainer: Any, module: Any) -> None:
        send(trainer, -1, validating=True)

    patch = pytest.MonkeyPatch()
    patch.setattr(Interruption, "on_validation_end", on_validation_end)
    patch.setattr(Interruption, "on_train_batch_start", on_train_batch_start)
    patch.setattr(Interruption, "on_validation_batch_start", on_validation_batch_start)
    try:
        yield
    finally:
        patch.undo()


def interrupted_run(directory: Path, moment: Moment, *overrides: str, resume: tuple[str, ...] = ()) -> dict[str, Any]:
    """A run that a signal ends at ``moment`` and that is then resumed with the further overrides ``resume``."""
    with signal_at(moment), pytest.raises(Interrupted) as caught:
        train(directory, *overrides)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    return train(directory, *overrides, *resume, "resume=auto")


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimizer, callbacks, figures of every epoch and the final result are equal to the last bit."""
    for name in ("last.ckpt", "best.ckpt"):
        one = torch.load(first / "checkpoints" / name, weights_only=True)
        other = torch.load(second / "checkpoints" / name, weights_only=True)
        for key in ("state_dict", "optimizer_states", "callbacks", "train_loss", "global_step", "epoch"):
            assert_equal(one.get(key), other.get(key), f"{name}: {key}")
    assert metrics(first) == metrics(second)


def metrics(directory: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv``, without the one figure that is a matter of the clock."""
    with (directory / "metrics.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "train/images_per_s"} for row in csv.DictReader(file)
        ]


def assert_equal(one: Any, other: Any, where: str) -> None:
    """Nested plain data and tensors are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}[{number}]")
    else:
        assert one == other, where


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of eight images: 18 train and 6 val, so five batches of four or fewer."""
    from tests.conftest import write_image_folder

    return write_image_folder(tmp_path_factory.mktemp("data") / "images", n=8, size=(40, 40))


Train = Callable[..., dict[str, Any]]


def forked(work: Callable[[], Any], output: Path) -> int:
    """Do ``work`` in a fork of this warm process, its output in a file; gives the process id.

    The fork ends as the command line would: with the code of the error or of the signal.
    """
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
        code = 0
    except (FinetuneError, Interrupted) as error:
        print(f"error: {error}", file=sys.__stderr__, flush=True)
        code = error.exit_code
    except BaseException:  # noqa: BLE001 - the child reports whatever it was
        traceback.print_exc(file=sys.__stderr__)
        sys.__stderr__.flush()
        code = 1
    finally:
        os._exit(code)


def exit_code(process: int, timeout_s: float) -> int:
    """The code of a fork that must end within ``timeout_s``; a signal that killed it counts negative."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise AssertionError(f"the process was still there after {timeout_s} s")
