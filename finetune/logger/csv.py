"""``metrics.csv``: one row per epoch, columns named like W&B's, nothing to install and nothing to lose.

Use it always: it is what ``summarize`` and the report read. Lightning's own CSVLogger writes a row per call (training
and validation of one epoch on different lines) and starts a new file on resume. Here the calls of one epoch meet in one
row, the last value of the epoch wins, and after a resume the rows that are computed again replace the old ones.
The file is rewritten whole and atomically at each change: at 200 epochs that is 20 kB.
"""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

FILE_NAME = "metrics.csv"
_FIRST_COLUMNS = ("epoch", "step")


class CsvLogger(Logger):
    """Writes ``run_directory/metrics.csv``; ``config`` is not written, ``config.yaml`` beside it has it.

    ``digits`` significant digits are kept; 17 keeps every bit of a float64.
    """

    def __init__(self, run_directory: Path, config: dict[str, Any], *, digits: int = 9) -> None:
        super().__init__()
        self.path = Path(run_directory) / FILE_NAME
        self.digits = digits
        self._rows: list[dict[str, str]] | None = None
        self._resumed = True

    @property
    def name(self) -> str:
        """The tracker's name."""
        return "csv"

    @property
    def version(self) -> str:
        """The run's name."""
        return self.path.parent.name

    @property
    def save_dir(self) -> str:
        """The run's directory."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` in the same directory is the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Merge ``metrics`` into the row of their epoch.

        Values without an ``epoch`` belong to the latest row. ``test/`` values are no epoch's: ``result.json`` has them;
        ``..._step`` values are one step's.
        """
        values = {
            key: self._text(value)
            for key, value in metrics.items()
            if not key.startswith("test/") and not key.endswith("_step")
        }
        epoch = values.pop("epoch", None)
        if not values:
            return
        rows = self._loaded_rows()
        number = int(float(epoch)) if epoch is not None else (int(rows[-1]["epoch"]) if rows else 0)
        if self._resumed:  # later rows are computed again; this one may have begun before the interruption
            rows[:] = [row for row in rows if int(row["epoch"]) <= number]
            self._resumed = False
        row = next((row for row in reversed(rows) if int(row["epoch"]) == number), None)
        if row is None:
            row = {"epoch": str(number)}
            rows.append(row)
        row.update(values)
        if step is not None:
            row["step"] = str(step)
        self._write(rows)

    def _text(self, value: float) -> str:
        return f"{float(value):.{self.digits}g}"

    def _loaded_rows(self) -> list[dict[str, str]]:
        """The rows of an earlier part of this run, read once."""
        if self._rows is None:
            self._rows = []
            if self.path.exists():
                with self.path.open(newline="", encoding="utf-8") as file:
                    self._rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
        return self._rows

    def _write(self, rows: list[dict[str, str]]) -> None:
        found = dict.fromkeys(key for row in rows for key in row)
        columns = [*_FIRST_COLUMNS, *sorted(key for key in found if key not in _FIRST_COLUMNS)]
        part = self.path.with_name(f"{FILE_NAME}.part")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)
