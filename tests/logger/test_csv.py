"""The CSV logger: one row per epoch, also after a resume."""

from __future__ import annotations

import csv
from pathlib import Path

from finetune.logger.csv import CsvLogger


def _rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _epoch(logger: CsvLogger, epoch: int, loss: float) -> None:
    """What Lightning sends during one epoch of two steps: a step, the validation, the end of training."""
    logger.log_metrics({"lr/head": 0.1, "epoch": epoch}, step=2 * epoch)
    logger.log_metrics({"val/accuracy": 0.5 + epoch / 10, "epoch": epoch}, step=2 * epoch + 1)
    logger.log_metrics({"train/loss": loss, "epoch": epoch}, step=2 * epoch + 1)
    logger.save()


def test_the_calls_of_one_epoch_become_one_row(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path, {})
    _epoch(logger, 0, 1.5)
    _epoch(logger, 1, 1.25)
    assert (tmp_path / "metrics.csv").read_text() == (
        "epoch,step,lr/head,train/loss,val/accuracy\n0,1,0.1,1.5,0.5\n1,3,0.1,1.25,0.6\n"
    )


def test_every_finished_epoch_is_on_disk_before_the_next_begins(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path, {})
    for epoch in range(3):
        _epoch(logger, epoch, 1.0)
        assert len(_rows(tmp_path)) == epoch + 1


def test_a_resumed_run_replaces_the_rows_it_computes_again(tmp_path: Path) -> None:
    first = CsvLogger(tmp_path, {})
    for epoch in range(4):
        _epoch(first, epoch, 10.0 + epoch)
    resumed = CsvLogger(tmp_path, {})  # the checkpoint was that of the end of epoch 1
    _epoch(resumed, 2, 0.2)
    assert [(row["epoch"], row["train/loss"]) for row in _rows(tmp_path)] == [("0", "10"), ("1", "11"), ("2", "0.2")]
    _epoch(resumed, 3, 0.3)
    assert [row["epoch"] for row in _rows(tmp_path)] == ["0", "1", "2", "3"]


def test_a_column_that_appears_later_is_empty_in_the_rows_before(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path, {})
    logger.log_metrics({"a": 1.0, "epoch": 0}, step=0)
    logger.log_metrics({"b": 2.0, "epoch": 1}, step=1)
    assert [(row["a"], row["b"]) for row in _rows(tmp_path)] == [("1", ""), ("", "2")]


def test_test_metrics_open_no_row_of_their_own(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path, {})
    _epoch(logger, 0, 1.0)
    logger.log_metrics({"test/accuracy": 0.9, "epoch": 1}, step=2)
    assert [row["epoch"] for row in _rows(tmp_path)] == ["0"]
    assert "test/accuracy" not in _rows(tmp_path)[0]
