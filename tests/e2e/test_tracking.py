"""A training under every condition of its W&B server: it starts, ends well, and its weights are those without W&B."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from finetune.checkpoint import read_checkpoint
from finetune.config import CONF_DIR
from finetune.run_directory import RunDirectory
from tests.conftest import write_image_folder
from tests.logger.wandb_stub import KEY, StubServer, config, history, isolate, records, running_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),  # Lightning 2.6 with torch 2.15
]
TINY = (
    "backbone.name=test_resnet", "backbone.weights=none", "data.image_size=32", "data.batch_size=4",
    "data.num_workers=0",
    "trainer=cpu", "trainer.precision=32-true", "report=none", "freeze=none", "cache=none",
)  # fmt: skip
_WITH = ("logger=[csv,wandb]", "logger.wandb.finish_timeout_s=2", "trainer.max_epochs=2")


def train(directory: Path, *overrides: str) -> dict[str, Any]:
    """One run in ``directory``, in this process."""
    from finetune import training

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[*TINY, *overrides])
    directory.mkdir(parents=True, exist_ok=True)
    return training.train(cfg, RunDirectory(directory), {"freeze": "none", "head": "linear"})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("tracking") / "images", n=10)


@pytest.fixture(scope="module")
def untracked(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the same run without W&B."""
    directory = tmp_path_factory.mktemp("untracked")
    train(directory, f"data.path={images}", *_WITH[2:], "logger=csv")
    return read_checkpoint(directory / "checkpoints" / "best.ckpt").state_dict


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubServer]:
    isolate(monkeypatch, tmp_path)
    with running_server(monkeypatch) as running:
        yield running
        sys.modules["wandb"].teardown()


def _no_key(server: StubServer, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("WANDB_API_KEY")


def _wrong_key(server: StubServer, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("WANDB_API_KEY", "w" * 40)


def _refused(server: StubServer, patch: pytest.MonkeyPatch) -> None:
    server.stop()


def _silent_after_the_start(server: StubServer, patch: pytest.MonkeyPatch) -> None:
    _at_the_second_epoch(patch, server.silent.set)


def _gone_at_the_end(server: StubServer, patch: pytest.MonkeyPatch) -> None:
    _at_the_second_epoch(patch, server.stop)


def _disabled(server: StubServer, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("WANDB_MODE", "disabled")


def _at_the_second_epoch(patch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    from finetune.model import ImageClassifier

    original = ImageClassifier.on_train_epoch_start

    def on_train_epoch_start(self: ImageClassifier) -> None:
        if self.current_epoch == 1:
            action()
        original(self)

    patch.setattr(ImageClassifier, "on_train_epoch_start", on_train_epoch_start)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (_no_key, "there is no API key for"),
        (_wrong_key, "does not accept the API key (HTTP 401)"),
        (_refused, "cannot be reached"),
        (_silent_after_the_start, "the upload did not end within 2 s"),
        (_gone_at_the_end, "the upload did not end within 2 s"),
        (_disabled, ""),
    ],
)
def test_the_tracker_neither_holds_up_nor_changes_a_training(
    condition: Callable[[StubServer, pytest.MonkeyPatch], None],
    said: str,
    server: StubServer,
    images: Path,
    untracked: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "finetune")
    condition(server, monkeypatch)
    run = tmp_path / "run"
    result = train(run, f"data.path={images}", *_WITH)
    assert result["status"] == "completed"
    weights = read_checkpoint(run / "checkpoints" / "best.ckpt").state_dict
    assert all(torch.equal(weights[name], value) for name, value in untracked.items())
    assert said in caplog.text
    if condition is _disabled:
        assert not list(run.rglob("*.wandb"))
        return
    assert "wandb sync --include-online" in caplog.text
    rows = history(run)
    assert [row["epoch"] for row in rows if "val/balanced_accuracy" in row] == [0, 1]
    assert config(run)["optimizer.lr"] == 0.001
    assert (
        list(run.glob("wandb/offline-*/files/media/table/split_*.json")) or "tables and figures stay in" in caplog.text
    )
    assert KEY.encode() not in b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_a_server_that_works_gets_the_run_with_curves_rates_and_summary(
    server: StubServer, images: Path, tmp_path: Path
) -> None:
    train(tmp_path / "run", f"data.path={images}", *_WITH, "log_every_n_steps=1", "logger.wandb.finish_timeout_s=20")
    rows = history(tmp_path / "run")
    steps = [row["_step"] for row in rows]
    assert steps == sorted(set(steps))
    expected = {"train/loss_step", "train/gradient_norm", "train/images_per_s", "lr/head", "lr/stem", "phase"}
    assert all(expected <= set(row) for row in rows if "train/loss_step" in row)
    assert "train/loss" in rows[-1] or any("train/loss" in row for row in rows)
    sent = "\n".join(server.received)
    assert "wandb-history.jsonl" in sent
    assert "best/val/balanced_accuracy" in sent
    assert "split.csv" in sent


def test_a_killed_run_goes_on_as_one_run_with_rising_steps(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*TINY, f"data.path={images}", f"hydra.run.dir={run}", "logger=[csv,wandb]", "trainer.max_epochs=30"]
    words.append("log_every_n_steps=1")
    command = [sys.executable, "-m", "finetune.train", *words]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    while not (run / "metrics.csv").exists() or len((run / "metrics.csv").read_text().splitlines()) < 5:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shorter = ["trainer.max_epochs=30", "resume=auto"]
    subprocess.run([*command, *shorter], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert len({record.run_id for record in records(run, "run")}) == 1
    assert len(list(run.glob("wandb/offline-run-*"))) == 2
    steps = [row["_step"] for row in history(run)]
    assert steps == sorted(set(steps))
    epochs = [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == [str(epoch) for epoch in range(30)]


def test_no_secret_is_in_any_file_or_line_of_a_run(images: Path, tmp_path: Path) -> None:
    canaries = {name: f"canary-{name}-0123456789" for name in ("variable", "url", "key")}
    environment = {
        **os.environ,
        "WANDB_MODE": "offline",
        "MY_SERVICE_TOKEN": canaries["variable"],
        "WANDB_API_KEY": "k" * 40,
    }
    run = tmp_path / "run"
    words = [
        *TINY,
        f"data.path={images}",
        f"hydra.run.dir={run}",
        "trainer.max_epochs=1",
        "report=html",
        "logger=[csv,wandb]",
        f"logger.wandb.group=https://me:{canaries['url']}@host/x",
        f"logger.wandb.tags=['{canaries['variable']}','password={canaries['key']}']",
    ]
    found = subprocess.run(
        [sys.executable, "-m", "finetune.train", *words], env=environment, capture_output=True, text=True, check=True
    )
    written = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file()).decode(errors="replace")
    everything = written + found.stdout + found.stderr
    assert [name for name, canary in canaries.items() if canary in everything] == []
    assert "k" * 40 not in everything
