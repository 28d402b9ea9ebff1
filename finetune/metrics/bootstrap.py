"""How far a figure may be from the truth: 95% intervals from resampling the images with replacement.

The percentile bootstrap (Efron, 1979), drawn from a seeded generator so that a report can be repeated. 1,000 resamples
of 10,000 images take about a second. Where every resample agrees (no mistake at all) resampling has nothing to say; a
plain proportion then gets Wilson's interval, anything else none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.metrics import calibration, classification, multilabel
from finetune.metrics.probability import Floats, Ints, decide, log_softmax, sigmoid, softmax
from finetune.metrics.summary import TOP

RESAMPLES = 1000
LEVEL = 0.95
_NORMAL_975 = 1.959963984540054


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


Statistic = Callable[[Ints], Mapping[str, float]]
"""Rows of a resample to named figures."""


def intervals(
    statistic: Statistic, num_images: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """The middle 95% of each figure over resamples of ``num_images`` rows; figures without spread are left out."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        for name, value in statistic(rng.integers(0, num_images, num_images)).items():
            drawn.setdefault(name, []).append(value)
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    found: dict[str, Interval] = {}
    for name, values in drawn.items():
        if np.isfinite(values).all() and np.ptp(values) > 0:
            low, high = np.percentile(values, tails)
            found[name] = Interval(float(low), float(high))
    return found


def wilson(hits: int, num_images: int) -> Interval:
    """Wilson's score interval of a proportion (1927); right also when all or none are hits."""
    share, z = hits / num_images, _NORMAL_975
    centre = (share + z**2 / (2 * num_images)) / (1 + z**2 / num_images)
    half = z / (1 + z**2 / num_images) * np.sqrt(share * (1 - share) / num_images + z**2 / (4 * num_images**2))
    return Interval(float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def single_label(
    logits_NK: Floats, targets_N: Ints, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of accuracy, balanced_accuracy, macro_f1, top5_accuracy, loss and ece."""
    num_images, num_classes = logits_NK.shape
    predictions_N = logits_NK.argmax(axis=1)
    correct_N = predictions_N == targets_N
    confidence_N = softmax(logits_NK).max(axis=1)
    losses_N = -np.take_along_axis(log_softmax(logits_NK), targets_N[:, None], axis=1)[:, 0]
    top_N = classification.in_top(logits_NK, targets_N, TOP) if num_classes > TOP else None

    def statistic(rows: Ints) -> dict[str, float]:
        counts = classification.count(targets_N[rows], predictions_N[rows], num_classes)
        figures = classification.averages(counts)
        figures["loss"] = float(losses_N[rows].mean())
        figures["ece"] = calibration.reliability(confidence_N[rows], correct_N[rows]).ece
        if top_N is not None:
            figures["top5_accuracy"] = float(top_N[rows].mean())
        return figures

    found = intervals(statistic, num_images, resamples=resamples, seed=seed)
    for name, hits_N in (("accuracy", correct_N), ("top5_accuracy", top_N)):
        if hits_N is not None and name not in found:
            found[name] = wilson(int(hits_N.sum()), num_images)
    return found


def multi_label(
    logits_NK: Floats,
    targets_NK: Floats,
    *,
    temperature: float,
    thresholds: list[float] | None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of f1, micro_f1, accuracy, hamming_accuracy and loss."""
    positives_NK = targets_NK >= 0.5
    decisions_NK = decide(sigmoid(logits_NK, temperature=temperature), thresholds)
    losses_N = calibration.nll(logits_NK, targets_NK)

    def statistic(rows: Ints) -> dict[str, float]:
        figures = multilabel.averages(positives_NK[rows], decisions_NK[rows])
        return figures | {"loss": float(losses_N[rows].mean())}

    found = intervals(statistic, len(logits_NK), resamples=resamples, seed=seed)
    if "accuracy" not in found:
        found["accuracy"] = wilson(int((positives_NK == decisions_NK).all(axis=1).sum()), len(logits_NK))
    return found


def difference(
    first_N: npt.NDArray[np.bool_], second_N: npt.NDArray[np.bool_], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Interval of mean(first) - mean(second) over the same images; None where the two never differ."""
    gaps_N = first_N.astype(np.float64) - second_N.astype(np.float64)
    found = intervals(lambda rows: {"gap": float(gaps_N[rows].mean())}, len(gaps_N), resamples=resamples, seed=seed)
    return found.get("gap")
