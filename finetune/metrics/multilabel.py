"""Several classes per image: each class is its own yes-or-no question.

``map`` is the mean over classes of average precision (scikit-learn's step-wise sum) and ``auroc`` the mean area under
the ROC curve; both leave out the classes for which they are undefined. ``f1`` is the macro average, ``accuracy`` the
share of images with every class right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.metrics.classification import ClassCounts, divide, scores
from finetune.metrics.probability import Floats

Decisions = npt.NDArray[np.bool_]


def count(positives_NK: Decisions, decisions_NK: Decisions) -> ClassCounts:
    """Per class: images with it, images said to have it, and both."""
    return ClassCounts(positives_NK.sum(axis=0), decisions_NK.sum(axis=0), (positives_NK & decisions_NK).sum(axis=0))


def average_precision(probabilities_NK: Floats, positives_NK: Decisions) -> npt.NDArray[np.float64]:
    """Average precision of each class; NaN where no image has it.

    Written out: importing scikit-learn for it would cost every command more than a second.
    """
    num_classes = positives_NK.shape[1]
    precision_K = np.full(num_classes, np.nan)
    if not np.isfinite(probabilities_NK).all():
        return precision_K
    for k in np.flatnonzero(positives_NK.any(axis=0)):
        precision_K[k] = _average_precision(probabilities_NK[:, k], positives_NK[:, k])
    return precision_K


def _average_precision(scores_N: Floats, positive_N: npt.NDArray[np.bool_]) -> float:
    """Precision at each distinct score, the highest first, weighted by the recall that it adds."""
    order_N = np.argsort(-scores_N, kind="stable")
    last_T = np.append(np.flatnonzero(np.diff(scores_N[order_N])), len(order_N) - 1)
    hits_T = np.cumsum(positive_N[order_N])[last_T]
    return float((np.diff(hits_T, prepend=0) * hits_T / (last_T + 1)).sum() / hits_T[-1])


def averages(positives_NK: Decisions, decisions_NK: Decisions) -> dict[str, float]:
    """Figures of the decisions; at least one image is needed."""
    counts = count(positives_NK, decisions_NK)
    seen_K = (counts.support_K > 0) | (counts.predicted_K > 0)
    f1_K = scores(counts).f1_K
    both = 2.0 * counts.correct_K.sum()
    return {
        "f1": float(f1_K[seen_K].mean()) if seen_K.any() else 0.0,
        "micro_f1": float(divide(both, counts.support_K.sum() + counts.predicted_K.sum())),
        "accuracy": float((positives_NK == decisions_NK).all(axis=1).mean()),
        "hamming_accuracy": float((positives_NK == decisions_NK).mean()),
    }


def fit_thresholds(probabilities_NK: Floats, targets_NK: Floats) -> list[float]:
    """For each class the threshold with the best F1 on these (val) images, half-way to the next probability below.

    0.5 for a class that no image has. Costs one sort per class.
    """
    positives_NK = targets_NK >= 0.5
    thresholds: list[float] = []
    for k in range(positives_NK.shape[1]):
        order_N = np.argsort(-probabilities_NK[:, k], kind="stable")
        sorted_N, positive_N = probabilities_NK[order_N, k], positives_NK[order_N, k]
        if not positive_N.any():
            thresholds.append(0.5)
            continue
        below_N = np.append(sorted_N[1:], 0.0)
        f1_N = 2.0 * np.cumsum(positive_N) / (np.arange(1, len(sorted_N) + 1) + positive_N.sum())
        f1_N[sorted_N == below_N] = -1.0  # a cut between equal probabilities cannot be made
        best = int(np.argmax(f1_N))
        thresholds.append(float((sorted_N[best] + below_N[best]) / 2.0))
    return thresholds
