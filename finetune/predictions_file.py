"""``predictions.csv``: ``path,label,prediction,confidence,prob_<class>...``, or the same as JSON lines.

Rows are written as they come, so that ten thousand images need no more memory than a batch. Nine significant digits:
with six the probabilities of a row no longer sum to one for scikit-learn, which then warns.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from finetune.metrics.predictions import Predictions

Format = Literal["csv", "jsonl"]
VAL_PREDICTIONS = "predictions_val"
"""Name, without suffix, of the file that every run of ``train`` leaves of its validation images."""


class PredictionsFile:
    """A context manager; ``path`` exists whole once it has been left without an error."""

    def __init__(
        self, directory: Path, classes: Sequence[str], kind: Format = "csv", *, name: str = "predictions"
    ) -> None:
        self.path = directory / f"{name}.{kind}"
        self.kind = kind
        self._part = self.path.with_name(f"{self.path.name}.part")
        directory.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("w", newline="", encoding="utf-8", errors="surrogateescape")
        self._csv = csv.writer(self._file, lineterminator="\n")
        if kind == "csv":
            self._csv.writerow(["path", "label", "prediction", "confidence", *(f"prob_{name}" for name in classes)])

    def __enter__(self) -> PredictionsFile:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    def write(self, predictions: Predictions) -> None:
        """Append one row per image, in the given order."""
        for row, path in enumerate(predictions.paths):
            words = (path, predictions.label(row), predictions.prediction(row))
            figures = [predictions.confidence_N[row], *predictions.probabilities_NK[row]]
            texts = [f"{float(figure):.9g}" for figure in figures]
            if self.kind == "csv":
                self._csv.writerow([*words, *texts])
                continue
            record: dict[str, object] = dict(zip(("path", "label", "prediction"), words, strict=True))
            record["confidence"] = float(texts[0])
            record["probabilities"] = dict(zip(predictions.classes, map(float, texts[1:]), strict=True))
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
