"""Label errors over a whole dataset: every image judged by the run of ``sweep=folds`` that did not learn from it.

Each run leaves ``predictions_val.csv``; the folds of one configuration and seed cover every training image once. When to
use: to clean a dataset, where val alone would show a fifth of it. ``label_errors.csv`` has ``path, label, prediction,
confidence`` and the probability of the given label, the most suspicious first. Sources: as in report/label_errors.py.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.errors import ConfigError
from finetune.leaderboard.runs import Run
from finetune.metrics.predictions import LABEL_SEPARATOR, Predictions
from finetune.predictions_file import VAL_PREDICTIONS
from finetune.report.label_errors import label_errors

log = logging.getLogger(__name__)


def write_label_errors(runs: Sequence[Run], output: Path, *, higher_is_better: bool) -> Path | None:
    """Write ``label_errors.csv`` into ``output``; None where no configuration has all its folds, or without cleanlab."""
    folds = _best_complete(runs, higher_is_better=higher_is_better)
    if folds is None:
        return None
    merged = _merge([run.directory / f"{VAL_PREDICTIONS}.csv" for run in folds])
    try:
        suspects = label_errors(merged)
    except ConfigError as error:
        log.info("labels    %s", error)
        return None
    path = output / "label_errors.csv"
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", "prediction", "confidence", "label_probability"])
        for row in suspects:
            given_K = _given(merged, row)
            figures = (merged.confidence_N[row], merged.probabilities_NK[row][given_K].min(initial=1.0))
            texts = [f"{float(figure):.4f}" for figure in figures]
            rows.writerow([merged.paths[row], merged.label(row), merged.prediction(row), *texts])
    log.info(
        "labels    %d of %d are probably wrong, judged by %d folds: %s",
        len(suspects),
        len(merged.paths),
        len(folds),
        path,
    )
    return path


def _best_complete(runs: Sequence[Run], *, higher_is_better: bool) -> list[Run] | None:
    """The folds of the best configuration and seed that has all of them."""
    grouped: dict[tuple[tuple[str, str], ...], dict[str, Run]] = {}
    for run in runs:
        number = run.setting("data.fold")
        if number.isdigit() and run.value is not None and (run.directory / f"{VAL_PREDICTIONS}.csv").exists():
            same = {key: value for key, value in run.overrides.items() if key != "data.fold"}
            grouped.setdefault(tuple(sorted(same.items())), {})[number] = run
    whole = [
        list(members.values())
        for members in grouped.values()
        if len(members) == int(next(iter(members.values())).setting("data.folds"))
    ]
    sign = 1.0 if higher_is_better else -1.0
    return max(whole, key=lambda members: sign * sum(run.value or 0.0 for run in members), default=None)


def _merge(paths: Sequence[Path]) -> Predictions:
    """The files' rows as one; probabilities come back as their logarithms."""
    names: list[str] = []
    labels: list[str] = []
    probabilities: list[list[float]] = []
    classes: tuple[str, ...] = ()
    for path in paths:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.reader(file)
            classes = tuple(column.removeprefix("prob_") for column in next(rows)[4:])
            for image, label, _prediction, _confidence, *figures in rows:
                names.append(image)
                labels.append(label)
                probabilities.append([float(figure) for figure in figures])
    probabilities_NK = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-12, 1 - 1e-12)
    number = {name: index for index, name in enumerate(classes)}
    if any(label not in number for label in labels):  # several labels an image, or none
        targets = np.zeros(probabilities_NK.shape, dtype=np.int64)
        for row, label in enumerate(labels):
            targets[row, [number[name] for name in label.split(LABEL_SEPARATOR) if name]] = 1
        logits_NK = np.log(probabilities_NK) - np.log1p(-probabilities_NK)
        return Predictions(tuple(names), logits_NK.astype(np.float32), targets, classes)
    single = np.array([number[label] for label in labels])
    return Predictions(tuple(names), np.log(probabilities_NK).astype(np.float32), single, classes)


def _given(predictions: Predictions, row: int) -> npt.NDArray[np.int64]:
    """The classes of an image's own label."""
    if predictions.is_multilabel:
        return np.flatnonzero(predictions.targets[row])
    return np.array([predictions.targets[row]])
