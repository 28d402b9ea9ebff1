"""Several processes: the same weights as one process with the whole batch, thawing in mid-run included.

The processes are forks of this one, started with the environment that torchrun gives; one test goes through
Lightning's own launcher, as ``python -m finetune.train trainer=ddp_cpu`` does. Layer norm, because batch norm's live
statistics are those of a process's own share. Tolerance: 1e-4 absolute, of weights that moved by more than 1e-2; sums
of gradients are added in another order.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.callback.interruption import Interruption
from finetune.model import ImageClassifier
from finetune.types import Batch
from tests.conftest import write_image_folder
from tests.engine.conftest import TINY, exit_code, forked, metrics, train

EXACT = ("backbone.name=test_vit", "transform=none", "cache=none", "optimizer=sgd", "optimizer.lr=0.05")
PAIR = ("trainer=ddp_cpu", "trainer.devices=2")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 training images and 9 for validation: every image trains in each epoch, and validation needs padding."""
    root = tmp_path_factory.mktemp("even")
    write_image_folder(root, classes=("train/a", "train/b"), n=16, size=(40, 40))
    write_image_folder(root, classes=("val/a", "val/b"), n=9, size=(40, 40), seed=1)
    for extra in sorted((root / "val" / "b").glob("*.png"))[:-8]:
        extra.unlink()
    return root


def torchrun(directory: Path, *overrides: str, before: Callable[[int], None] = lambda rank: None) -> list[int]:
    """Two processes of one run, as torchrun starts them; gives their process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):

        def work(rank: int = rank) -> None:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "GROUP_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "TORCHELASTIC_RUN_ID": "test",
            }
            faulthandler.dump_traceback_later(240, exit=True)  # a hang says where
            before(rank)
            train(directory, *overrides, *PAIR)

        processes.append(forked(work, directory.parent / f"{directory.name}-{rank}.log"))
    return processes


def logs(directory: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in sorted(directory.parent.glob("*.log")))


def weights(directory: Path) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("network.")}


def assert_close(one: Path, other: Path) -> None:
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )
    for row, same in zip(metrics(one), metrics(other), strict=True):
        assert float(row["val/accuracy"]) == float(same["val/accuracy"])
        assert float(row["train/loss"]) == pytest.approx(float(same["train/loss"]), abs=TOLERANCE)
        assert float(row["val/loss"]) == pytest.approx(float(same["val/loss"]), abs=TOLERANCE)


def assert_two_train_what_one_does(tmp_path: Path, even: Path, schedule: str) -> None:
    overrides = (f"data.path={even}", f"freeze={schedule}", *EXACT)
    processes = torchrun(tmp_path / "pair", *overrides, "data.batch_size=4")
    assert [exit_code(process, 300) for process in processes] == [0, 0], logs(tmp_path / "pair")
    train(tmp_path / "one", *overrides, "data.batch_size=8")
    assert_close(tmp_path / "one", tmp_path / "pair")
    result = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "pair")]
    assert result[0]["status"] == result[1]["status"] == "completed"
    assert result[0]["val"]["accuracy"] == result[1]["val"]["accuracy"], "17 images, each counted once"


def test_two_processes_train_what_one_does_with_the_double_batch_through_every_thaw(tmp_path: Path, even: Path) -> None:
    assert_two_train_what_one_does(tmp_path, even, "gradual")


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["none", "head_only", "lp_ft", "surgical", "norm_only"])
def test_every_other_schedule_trains_in_two_processes_what_it_trains_in_one(
    tmp_path: Path, even: Path, schedule: str
) -> None:
    assert_two_train_what_one_does(tmp_path, even, schedule)


def test_a_signal_to_one_process_stops_both_after_the_same_step_and_they_resume(tmp_path: Path, even: Path) -> None:
    overrides = (f"data.path={even}", "freeze=lp_ft", *EXACT, "data.batch_size=4")

    def before(rank: int) -> None:
        def on_train_batch_start(self: object, trainer: Any, module: object, batch: object, batch_idx: int) -> None:
            if rank == 1 and (trainer.current_epoch, batch_idx) == (1, 1):
                os.kill(os.getpid(), signal.SIGTERM)

        Interruption.on_train_batch_start = on_train_batch_start  # type: ignore[method-assign]

    processes = torchrun(tmp_path / "pair", *overrides, before=before)
    assert [exit_code(process, 300) for process in processes] == [143, 0], logs(tmp_path / "pair")
    assert json.loads((tmp_path / "pair" / "result.json").read_text())["status"] == "interrupted"
    assert torch.load(tmp_path / "pair" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4 + 2
    processes = torchrun(tmp_path / "pair", *overrides, "resume=auto")
    assert [exit_code(process, 300) for process in processes] == [0, 0], logs(tmp_path / "pair")
    processes = torchrun(tmp_path / "whole", *overrides)
    assert [exit_code(process, 300) for process in processes] == [0, 0], logs(tmp_path / "pair")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(tmp_path / "pair")[name]), name
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "pair"), "the interrupted epoch's mean loss too"


def test_fewer_images_than_the_processes_could_take_train_and_validate(tmp_path: Path) -> None:
    """3 training images for two batches of 4, so one sits out; 1 for validation, so one process has padding alone."""
    few = write_image_folder(tmp_path / "few", classes=("train/a", "train/b"), n=2, size=(40, 40))
    (few / "train" / "b" / "001.png").unlink()
    write_image_folder(few, classes=("val/a",), n=1, size=(40, 40), seed=1)
    overrides = (f"data.path={few}", "freeze=lp_ft", *EXACT, "monitor=val/loss")
    processes = torchrun(tmp_path / "pair", *overrides)
    assert [exit_code(process, 300) for process in processes] == [0, 0], logs(tmp_path / "pair")
    found = metrics(tmp_path / "pair")
    assert len(found) == 4
    assert all(float(row["val/accuracy"]) in (0.0, 1.0) for row in found), "one image"


def test_a_batch_of_which_one_process_can_read_nothing_holds_up_no_other(tmp_path: Path) -> None:
    """Batches of one image each; one breaks after the first epoch, and its process has nothing to give to its step."""
    images = write_image_folder(tmp_path / "images", classes=("train/a", "train/b"), n=4, size=(40, 40))
    write_image_folder(images, classes=("val/a", "val/b"), n=2, size=(40, 40), seed=1)

    def before(rank: int) -> None:
        nothing = ImageClassifier._nothing

        def seen(self: ImageClassifier) -> torch.Tensor:
            (tmp_path / f"epoch {self.current_epoch}").touch()
            return nothing(self)

        def on_train_epoch_start(self: object, trainer: Any, module: object) -> None:
            if trainer.current_epoch == 1:
                table = trainer.datamodule.table
                for split in ("train", "val"):
                    table.path(int(table.rows(split)[0])).write_bytes(b"no more")

        ImageClassifier._nothing = seen  # type: ignore[method-assign]
        Interruption.on_train_epoch_start = on_train_epoch_start  # type: ignore[method-assign]

    overrides = (f"data.path={images}", "freeze=lp_ft", *EXACT, "data.batch_size=1", "data.max_bad_fraction=0.5")
    processes = torchrun(tmp_path / "pair", *overrides, before=before)
    assert [exit_code(process, 300) for process in processes] == [0, 0], logs(tmp_path / "pair")
    assert sorted(path.name for path in tmp_path.glob("epoch *")) == ["epoch 1", "epoch 2", "epoch 3"]
    assert torch.load(tmp_path / "pair" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4 * 4
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "pair").values())


@pytest.mark.slow
def test_what_fits_in_the_smaller_process_decides_for_both(tmp_path: Path, even: Path) -> None:
    def before(rank: int) -> None:
        batch_loss = ImageClassifier.batch_loss

        def limited(self: ImageClassifier, batch: Batch) -> torch.Tensor:
            if len(batch.indices) > (4 if rank == 1 else 100):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return batch_loss(self, batch)

        ImageClassifier.batch_loss = limited  # type: ignore[method-assign]

    overrides = (f"data.path={even}", "freeze=lp_ft", *EXACT)
    processes = torchrun(tmp_path / "pair", *overrides, "data.batch_size=auto", before=before)
    assert [exit_code(process, 300) for process in processes] == [0, 0], logs(tmp_path / "pair")
    assert json.loads((tmp_path / "pair" / "result.json").read_text())["batch_size"] == {"step": 32, "at_once": 4}
    train(tmp_path / "one", *overrides, "data.batch_size=32")
    assert_close(tmp_path / "one", tmp_path / "pair")


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_process_is_killed_the_other_leaves_within_a_minute(tmp_path: Path, even: Path, killed: int) -> None:
    def before(rank: int) -> None:
        def on_train_batch_start(self: object, trainer: Any, module: object, batch: object, batch_idx: int) -> None:
            if rank == killed and (trainer.current_epoch, batch_idx) == (1, 1):
                os.kill(os.getpid(), signal.SIGKILL)

        Interruption.on_train_batch_start = on_train_batch_start  # type: ignore[method-assign]

    overrides = (f"data.path={even}", "freeze=none", *EXACT, "data.batch_size=4")
    processes = torchrun(tmp_path / "pair", *overrides, before=before)
    assert exit_code(processes[killed], 300) == -signal.SIGKILL, logs(tmp_path / "pair")
    assert exit_code(processes[1 - killed], 60) == 1, logs(tmp_path / "pair")


def command(directory: Path, data: Path) -> list[str]:
    tiny = [text for text in TINY if not text.startswith("trainer=")]
    run = (
        f"hydra.run.dir={directory}",
        f"data.path={data}",
        "recipe=none",
        "freeze=none",
        *EXACT,
        "data.batch_size=4",
        *PAIR,
    )
    return [sys.executable, "-m", "finetune.train", *tiny, *run]


@pytest.mark.slow
def test_the_command_starts_its_own_processes_and_two_commands_at_once_do_not_meet(tmp_path: Path, even: Path) -> None:
    commands = [
        subprocess.Popen(
            command(tmp_path / name, even), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
        )
        for name in ("first", "second")
    ]
    outputs = [process.communicate(timeout=500)[0] for process in commands]
    assert [process.returncode for process in commands] == [0, 0], outputs
    train(
        tmp_path / "one", *(text for text in command(tmp_path, even)[3:-2] if "hydra" not in text), "data.batch_size=8"
    )
    for name in ("first", "second"):
        assert_close(tmp_path / "one", tmp_path / name)
        assert sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) == [
            "best.ckpt",
            "last.ckpt",
            "previous.ckpt",
        ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "one", "second"], "no process ran elsewhere"


@pytest.mark.slow
def test_a_killed_helper_of_the_command_leaves_no_orphan(tmp_path: Path, even: Path) -> None:
    process = subprocess.Popen(
        [*command(tmp_path / "run", even), "trainer.max_epochs=10000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    helpers = [child for child in children if b"finetune.train" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(helpers) == 1
    os.kill(helpers[0], signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    deadline = time.monotonic() + 30  # what only keeps books for its parent (resource trackers) leaves a moment later
    while (left := [child for child in children if Path(f"/proc/{child}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
