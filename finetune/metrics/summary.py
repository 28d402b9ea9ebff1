"""The flat figures of ``result.json``: names to numbers, the same names in metrics.csv and in every tracker.

One class per image: accuracy, balanced_accuracy, macro_f1, top5_accuracy (only with more than five classes), loss, ece,
brier, auroc, macro_precision, macro_recall. Several: map, f1, micro_f1, accuracy, hamming_accuracy, loss, ece, brier,
auroc. ``loss``, ``ece`` and ``brier`` are those of the plain scores, as during training; with a temperature other than
1 the calibrated figures stand beside them. ``auroc`` ranks the probabilities as predictions.csv has them. A figure that
is undefined (AUROC with one class) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.errors import DataError
from finetune.metrics import calibration, classification, multilabel
from finetune.metrics.probability import Floats, Ints, decide, sigmoid, softmax

TOP = 5


def result(
    logits_NK: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    temperature: float = 1.0,
    thresholds: Sequence[float] | None = None,
) -> dict[str, float]:
    """All figures of these scores; targets are class numbers N, or 0/1 N K for multi-label. -1 (unknown) is left out.

    >>> result([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 1, 1])["accuracy"]
    0.6666666666666666
    """
    known = np.asarray(targets)
    labelled_N = known >= 0 if known.ndim == 1 else (known >= 0).all(axis=1)
    if not labelled_N.any():
        raise DataError(f"no labelled image among {len(known)}; a metric needs at least 1")
    scores_NK = np.asarray(logits_NK)[labelled_N]
    if known.ndim == 1:
        return single_label(scores_NK, known[labelled_N].astype(np.int64), temperature=temperature)
    return multi_label(scores_NK, known[labelled_N], temperature=temperature, thresholds=thresholds)


def single_label(logits_NK: Floats, targets_N: Ints, *, temperature: float) -> dict[str, float]:
    """Figures for one class per image."""
    num_classes = logits_NK.shape[1]
    predictions_N = logits_NK.argmax(axis=1)
    counts = classification.count(targets_N, predictions_N, num_classes)
    figures = classification.averages(counts)
    if num_classes > TOP:
        figures["top5_accuracy"] = float(classification.in_top(logits_NK, targets_N, TOP).mean())
    correct_N = predictions_N == targets_N
    for suffix, divisor in _calibrations(temperature):
        probabilities_NK = softmax(logits_NK, temperature=divisor)
        figures[f"loss{suffix}"] = float(calibration.nll(logits_NK, targets_N, temperature=divisor).mean())
        figures[f"ece{suffix}"] = calibration.reliability(_finite(probabilities_NK).max(axis=1), correct_N).ece
        figures[f"brier{suffix}"] = calibration.brier(probabilities_NK, targets_N)
    ranked_NK = softmax(logits_NK, temperature=temperature)
    areas_K = classification.auroc(ranked_NK, classification.one_hot(targets_N, num_classes))
    if not np.isnan(areas_K).all():
        figures["auroc"] = float(np.nanmean(areas_K))
    return figures


def multi_label(
    logits_NK: Floats, targets_NK: Floats, *, temperature: float, thresholds: Sequence[float] | None
) -> dict[str, float]:
    """Figures for several classes per image; a soft target counts as present from 0.5."""
    positives_NK = targets_NK >= 0.5
    probabilities_NK = sigmoid(logits_NK)
    decisions_NK = decide(sigmoid(logits_NK, temperature=temperature), thresholds)
    figures: dict[str, float] = {}
    precision_K = multilabel.average_precision(probabilities_NK, positives_NK)
    if not np.isnan(precision_K).all():
        figures["map"] = float(np.nanmean(precision_K))
    figures |= multilabel.averages(positives_NK, decisions_NK)
    for suffix, divisor in _calibrations(temperature):
        scaled_NK = sigmoid(logits_NK, temperature=divisor)
        curve = calibration.reliability(_finite(scaled_NK).ravel(), positives_NK.ravel())
        figures[f"loss{suffix}"] = float(calibration.nll(logits_NK, targets_NK, temperature=divisor).mean())
        figures[f"ece{suffix}"] = curve.ece
        figures[f"brier{suffix}"] = calibration.brier(scaled_NK, targets_NK)
    areas_K = classification.auroc(probabilities_NK, positives_NK)
    if not np.isnan(areas_K).all():
        figures["auroc"] = float(np.nanmean(areas_K))
    return figures


def _calibrations(temperature: float) -> list[tuple[str, float]]:
    """Suffix and temperature of each set of calibration figures."""
    return [("", 1.0)] + ([("_calibrated", temperature)] if temperature != 1.0 else [])


def _finite(probabilities_NK: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A diverged network's NaN probabilities count as zero confidence; its loss still says NaN."""
    return np.nan_to_num(probabilities_NK, nan=0.0)
