"""Everything that is measured about one set of predictions, in one plain record: figures, intervals, tables, curves.

Cost: about a second for 10,000 images, nearly all of it the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.metrics import bootstrap, classification, multilabel
from finetune.metrics.bootstrap import Interval, difference
from finetune.metrics.calibration import Reliability, reliability
from finetune.metrics.mcnemar import McNemar, mcnemar
from finetune.metrics.predictions import Predictions
from finetune.metrics.probability import sigmoid, softmax
from finetune.metrics.summary import result


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table; ``auroc`` and ``average_precision`` are None where undefined."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    auroc: float | None
    average_precision: float | None


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, their 95% intervals, the per-class table, the confusion matrix (rows are the truth; None for
    multi-label), and the reliability curve before and after the temperature.
    """

    num_images: int
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    per_class: tuple[ClassRow, ...]
    confusion: npt.NDArray[np.int64] | None
    reliability_raw: Reliability
    reliability_calibrated: Reliability

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for result.json, beside the flat figures; null where undefined."""
        curves = {"raw": self.reliability_raw, "calibrated": self.reliability_calibrated}
        return {
            "num_images": self.num_images,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "per_class": {row.name: {k: v for k, v in vars(row).items() if k != "name"} for row in self.per_class},
            "confusion_matrix": None if self.confusion is None else self.confusion.tolist(),
            "reliability": {
                name: {field: np.asarray(value).tolist() for field, value in curve._asdict().items()}
                for name, curve in curves.items()
            },
        }


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images: accuracy of each, the difference with its interval, and McNemar's test."""

    accuracy: float
    other_accuracy: float
    difference: float
    interval: Interval | None
    test: McNemar

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for result.json."""
        flat = {key: value for key, value in vars(self).items() if key not in ("interval", "test")}
        return flat | {"interval": list(self.interval) if self.interval else None} | self.test._asdict()


def evaluate(predictions: Predictions, *, resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> Evaluation:
    """Measure the labelled images; raises DataError when there is none."""
    labelled = predictions.select(predictions.labelled_N)
    metrics = result(
        labelled.logits_NK, labelled.targets, temperature=predictions.temperature, thresholds=predictions.thresholds
    )
    scores_NK = labelled.logits_NK
    to_probability = sigmoid if labelled.is_multilabel else softmax
    if labelled.is_multilabel:
        targets_NK = labelled.targets.astype(np.float64)
        intervals = bootstrap.multi_label(
            scores_NK,
            targets_NK,
            temperature=predictions.temperature,
            thresholds=list(predictions.thresholds) if predictions.thresholds else None,
            resamples=resamples,
            seed=seed,
        )
        positives_NK = targets_NK >= 0.5
        confusion = None
    else:
        targets_N = labelled.targets.astype(np.int64)
        intervals = bootstrap.single_label(scores_NK, targets_N, resamples=resamples, seed=seed)
        positives_NK = classification.one_hot(targets_N, len(labelled.classes))
        confusion = classification.confusion_matrix(targets_N, scores_NK.argmax(axis=1), len(labelled.classes))
    curves = [
        _curve(labelled, to_probability(scores_NK, temperature=divisor), positives_NK)
        for divisor in (1.0, predictions.temperature)
    ]
    return Evaluation(
        len(labelled.paths), metrics, intervals, _per_class(labelled, positives_NK), confusion, curves[0], curves[1]
    )


def compare(first: Predictions, second: Predictions, *, seed: int = 0) -> Comparison:
    """Two models' predictions of the same labelled images, in the same order."""
    known_N = first.labelled_N
    first_N, second_N = first.correct_N[known_N], second.correct_N[known_N]
    accuracy, other = float(first_N.mean()), float(second_N.mean())
    interval = difference(first_N, second_N, seed=seed)
    return Comparison(accuracy, other, accuracy - other, interval, mcnemar(first_N, second_N))


def _curve(
    labelled: Predictions, probabilities_NK: npt.NDArray[np.float64], positives_NK: npt.NDArray[np.bool_]
) -> Reliability:
    """Reliability of the chosen class, or for multi-label of every class of every image."""
    finite_NK = np.nan_to_num(probabilities_NK, nan=0.0)
    if labelled.is_multilabel:
        return reliability(finite_NK.ravel(), positives_NK.ravel())
    return reliability(finite_NK.max(axis=1), labelled.correct_N)


def _per_class(labelled: Predictions, positives_NK: npt.NDArray[np.bool_]) -> tuple[ClassRow, ...]:
    """The per-class table, in class order."""
    counts = multilabel.count(positives_NK, labelled.decisions_NK)
    each = classification.scores(counts)
    areas_K = classification.auroc(labelled.probabilities_NK, positives_NK)
    precision_K = multilabel.average_precision(labelled.probabilities_NK, positives_NK)
    return tuple(
        ClassRow(
            name,
            float(each.precision_K[k]),
            float(each.recall_K[k]),
            float(each.f1_K[k]),
            int(counts.support_K[k]),
            int(counts.predicted_K[k]),
            None if np.isnan(areas_K[k]) else float(areas_K[k]),
            None if np.isnan(precision_K[k]) else float(precision_K[k]),
        )
        for k, name in enumerate(labelled.classes)
    )
