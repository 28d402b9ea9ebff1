"""What every tracker promises: it takes a run's epochs, is closed in every way, and writes below the runs only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lightning.pytorch.loggers import Logger

CONFIG = {"optimizer": {"lr": 0.01}, "seed": 3}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory below the current folder, as commands make them."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "runs" / "day" / "time"
    directory.mkdir(parents=True)
    (directory / "split.csv").write_text("path,label,split,sha256\na.png,cat,train,0\nb.png,dog,val,0\n")
    (directory / "result.json").write_text(json.dumps({"status": "completed", "val": {"accuracy": 0.5}}))
    return directory


def log_two_epochs(logger: Logger) -> None:
    for epoch in range(2):
        logger.log_metrics({"train/loss": 1.0 - epoch / 4, "epoch": epoch}, step=epoch * 5 + 4)
        logger.log_metrics({"val/accuracy": 0.25 + epoch / 4, "epoch": epoch}, step=epoch * 5 + 4)


def finish(logger: Logger, status: str) -> None:
    """As training ends a run: trackers that need to know have a ``finish``."""
    logger.finalize("success")
    if hasattr(logger, "finish"):
        logger.finish(status)


def test_a_tracker_is_a_lightning_logger_with_the_name_of_its_yaml(logger, run, part):
    built = part("logger", logger, run, CONFIG)
    assert isinstance(built, Logger)
    assert built.name == logger or (logger, built.name) in {("wandb", "finetune"), ("mlflow", "finetune")}
    built.log_hyperparams({})
    finish(built, "failed")


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
def test_a_tracker_can_be_finished_in_every_way_and_writes_below_the_runs_only(logger, status, run, part):
    built = part("logger", logger, run, CONFIG)
    built.log_hyperparams({})
    log_two_epochs(built)
    built.save()
    finish(built, status)
    written = {path.relative_to(run.parents[2]).parts[0] for path in run.parents[2].rglob("*")}
    assert written == {"runs"}
    assert [
        path for path in run.parents[1].rglob("*") if path.is_file() and path.name not in ("split.csv", "result.json")
    ]


def test_a_tracker_takes_the_same_run_again(logger, run, part):
    first = part("logger", logger, run, CONFIG)
    log_two_epochs(first)
    finish(first, "interrupted")
    second = part("logger", logger, run, CONFIG)
    second.log_metrics({"train/loss": 0.5, "epoch": 2}, step=14)
    finish(second, "completed")
    assert second.version == first.version
