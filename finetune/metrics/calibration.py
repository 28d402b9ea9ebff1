"""Does a confidence of 0.8 mean right four times in five? Measured, and mended with one number.

``fit_temperature`` divides all scores by one temperature (Guo et al., "On Calibration of Modern Neural Networks",
2017). It is fitted on val only, changes no softmax decision, and costs milliseconds.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.errors import DataError
from finetune.metrics.probability import Floats, Ints, log_sigmoid, log_softmax

NUM_BINS = 15


class Reliability(NamedTuple):
    """Confidence against accuracy in equal-width bins over [0, 1]; zeros where a bin is empty."""

    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    images: Ints

    @property
    def ece(self) -> float:
        """Expected calibration error: the gap of each bin, weighted by its share of the images."""
        return float(np.sum(self.images * np.abs(self.accuracy - self.confidence)) / self.images.sum())


def reliability(confidence_N: Floats, correct_N: npt.NDArray[np.bool_], *, num_bins: int = NUM_BINS) -> Reliability:
    """Bin by confidence, each bin open below and closed above (so that 1.0 belongs to the last)."""
    above_N = np.ceil(np.asarray(confidence_N, dtype=np.float64) * num_bins).astype(np.int64)
    bins_N = np.clip(above_N - 1, 0, num_bins - 1)
    images = np.bincount(bins_N, minlength=num_bins)
    filled = np.maximum(images, 1)
    return Reliability(
        np.bincount(bins_N, weights=confidence_N, minlength=num_bins) / filled,
        np.bincount(bins_N, weights=correct_N, minlength=num_bins) / filled,
        images,
    )


def nll(logits_NK: npt.ArrayLike, targets: npt.NDArray[Any], *, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Negative log-likelihood of each image N: cross-entropy, or for targets N K the mean binary cross-entropy."""
    if targets.ndim == 1:
        log_NK = log_softmax(logits_NK, temperature=temperature)
        return -np.take_along_axis(log_NK, targets.astype(np.int64)[:, None], axis=1)[:, 0]
    present_NK = log_sigmoid(logits_NK, temperature=temperature)
    absent_NK = log_sigmoid(-np.asarray(logits_NK, dtype=np.float64), temperature=temperature)
    targets_NK = targets.astype(np.float64)
    losses_N: npt.NDArray[np.float64] = -(targets_NK * present_NK + (1.0 - targets_NK) * absent_NK).mean(axis=1)
    return losses_N


def brier(probabilities_NK: Floats, targets: npt.NDArray[Any]) -> float:
    """Mean squared error of the probabilities: summed over classes (0 to 2), or per class for multi-label (0 to 1)."""
    if targets.ndim == 1:
        errors_NK = probabilities_NK - np.eye(probabilities_NK.shape[1])[targets.astype(np.int64)]
        return float(np.square(errors_NK).sum(axis=1).mean())
    return float(np.square(probabilities_NK - targets.astype(np.float64)).mean())


def fit_temperature(logits_NK: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """The temperature that makes the probabilities of these (val) images most likely; never worse than 1.

    A weak prior, log T ~ Normal(0, 1), counts as one part of a nat against all images together: without it a handful of
    images that are all classified correctly would drive T to zero and every confidence to 1.
    Targets are class numbers N, or 0/1 N K for multi-label; images whose target is -1 are left out.
    """
    from scipy.optimize import minimize_scalar

    scores_NK, known = np.asarray(logits_NK, dtype=np.float64), np.asarray(targets)
    labelled_N = known >= 0 if known.ndim == 1 else (known >= 0).all(axis=1)
    scores_NK, known = scores_NK[labelled_N], known[labelled_N]
    if not len(known):
        raise DataError("temperature scaling has no labelled image to fit on; expected at least 1 in val")
    if not np.isfinite(scores_NK).all():
        raise DataError("temperature scaling got scores that are not finite; the network has diverged")

    def objective(log_temperature: float) -> float:
        losses_N = nll(scores_NK, known, temperature=math.exp(log_temperature))
        return float(losses_N.sum() * (1 if known.ndim == 1 else known.shape[1]) + 0.5 * log_temperature**2)

    fitted = minimize_scalar(objective, bracket=(-0.5, 0.5))
    return float(math.exp(fitted.x)) if fitted.fun < objective(0.0) else 1.0
