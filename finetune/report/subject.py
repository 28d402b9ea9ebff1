"""What a report is about, as plain data: predictions, how to see an image, and what the run directory tells."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.metrics.evaluation import Comparison, Evaluation
from finetune.metrics.predictions import Predictions
from finetune.report import lr_range
from finetune.report.curves import Phase
from finetune.report.lr_range import RatesTried

Image = npt.NDArray[np.uint8]
Maps = Callable[[list[Image], list[int]], npt.NDArray[np.float32] | None]
"""Network inputs and a class number each to Grad-CAM maps B H W; None where the network has no spatial map."""


@dataclass(frozen=True)
class Subject:
    """``read(row)`` gives the network's input for a row of ``predictions`` (uint8 H W 3). ``maps`` None: no Grad-CAM.

    ``trained_on``: the model has seen these images; label errors are then not looked for.
    """

    title: str
    split: str
    predictions: Predictions
    evaluation: Evaluation
    read: Callable[[int], Image]
    maps: Maps | None = None
    phases: tuple[Phase, ...] = ()
    monitor: str = "val/balanced_accuracy"
    comparison: Comparison | None = None
    other_name: str = ""
    unreadable: tuple[str, ...] = ()
    command: str = ""
    trained_on: bool = False
    kept: tuple[str, ...] = ()
    """Which weights were kept, and why, a sentence each."""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFiles:
    """What stands in a run directory; empty where a file is not there (evaluate writes no metrics.csv)."""

    history: tuple[dict[str, float], ...]
    config: str
    data_report: dict[str, Any]
    recipe: dict[str, Any]
    lr_range: RatesTried | None


def read_run(directory: Path) -> RunFiles:
    """Read metrics.csv, config.yaml, data_report.json, recipe.json and lr_range.csv of a run directory."""
    history: list[dict[str, float]] = []
    metrics = directory / "metrics.csv"
    if metrics.is_file():
        with metrics.open(newline="", encoding="utf-8") as file:
            history = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    config, data, recipe = (directory / name for name in ("config.yaml", "data_report.json", "recipe.json"))
    return RunFiles(
        tuple(history),
        config.read_text(encoding="utf-8") if config.is_file() else "",
        json.loads(data.read_text(encoding="utf-8")) if data.is_file() else {},
        json.loads(recipe.read_text(encoding="utf-8")) if recipe.is_file() else {},
        lr_range.read(directory),
    )
