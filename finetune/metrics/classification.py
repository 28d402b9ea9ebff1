"""Counts and scores for one class per image, with scikit-learn's meaning in every corner case.

A class that occurs neither among the targets nor among the predictions is left out of the macro averages; one that is
only predicted counts as zero; ``balanced_accuracy`` averages over the classes that occur among the targets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.metrics.probability import Floats, Ints


class ClassCounts(NamedTuple):
    """Per class: images of it, images called it, and images of it called it."""

    support_K: Ints
    predicted_K: Ints
    correct_K: Ints


class ClassScores(NamedTuple):
    """Per class, in [0, 1]; zero where there is nothing to divide by."""

    precision_K: npt.NDArray[np.float64]
    recall_K: npt.NDArray[np.float64]
    f1_K: npt.NDArray[np.float64]


def count(targets_N: Ints, predictions_N: Ints, num_classes: int) -> ClassCounts:
    """Count each class among targets, predictions and hits."""
    hits_N = targets_N[targets_N == predictions_N]
    return ClassCounts(
        np.bincount(targets_N, minlength=num_classes),
        np.bincount(predictions_N, minlength=num_classes),
        np.bincount(hits_N, minlength=num_classes),
    )


def divide(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Elementwise quotient, zero where the denominator is zero."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def scores(counts: ClassCounts) -> ClassScores:
    """Precision, recall and F1 of each class."""
    return ClassScores(
        divide(counts.correct_K, counts.predicted_K),
        divide(counts.correct_K, counts.support_K),
        divide(2 * counts.correct_K, counts.support_K + counts.predicted_K),
    )


def averages(counts: ClassCounts) -> dict[str, float]:
    """Accuracy and the averages over classes; at least one image is needed."""
    each = scores(counts)
    present_K = counts.support_K > 0
    seen_K = present_K | (counts.predicted_K > 0)
    return {
        "accuracy": float(counts.correct_K.sum() / counts.support_K.sum()),
        "balanced_accuracy": float(each.recall_K[present_K].mean()),
        "macro_f1": float(each.f1_K[seen_K].mean()),
        "macro_precision": float(each.precision_K[seen_K].mean()),
        "macro_recall": float(each.recall_K[seen_K].mean()),
    }


def confusion_matrix(targets_N: Ints, predictions_N: Ints, num_classes: int) -> Ints:
    """Images by true class (row) and predicted class (column)."""
    cells_N = targets_N * num_classes + predictions_N
    return np.bincount(cells_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def in_top(logits_NK: Floats, targets_N: Ints, k: int) -> npt.NDArray[np.bool_]:
    """Whether fewer than ``k`` classes stand before the target; ties go to the class that comes first, as in argmax."""
    target_N1 = np.take_along_axis(logits_NK, targets_N[:, None], axis=1)
    earlier_NK = np.arange(logits_NK.shape[1]) < targets_N[:, None]
    ahead_NK = (logits_NK > target_N1) | ((logits_NK == target_N1) & earlier_NK)
    within_N: npt.NDArray[np.bool_] = ahead_NK.sum(axis=1) < k
    return within_N


def auroc(scores_NK: Floats, positives_NK: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Area under each class's ROC curve, ties counted half; NaN where all images or none are of the class.

    The Mann-Whitney form: the mean rank of the positives. Costs one sort per class.
    """
    from scipy.stats import rankdata

    num_images, num_classes = scores_NK.shape
    areas_K = np.full(num_classes, np.nan)
    if not np.isfinite(scores_NK).all():
        return areas_K
    for k in range(num_classes):
        positives_N = positives_NK[:, k]
        num_positives = int(positives_N.sum())
        num_negatives = num_images - num_positives
        if num_positives and num_negatives:
            rank_sum = rankdata(scores_NK[:, k])[positives_N].sum()
            areas_K[k] = (rank_sum - num_positives * (num_positives + 1) / 2) / (num_positives * num_negatives)
    return areas_K


def one_hot(targets_N: Ints, num_classes: int) -> npt.NDArray[np.bool_]:
    """Class numbers as a boolean matrix N K."""
    matrix_NK: npt.NDArray[np.bool_] = targets_N[:, None] == np.arange(num_classes)
    return matrix_NK
