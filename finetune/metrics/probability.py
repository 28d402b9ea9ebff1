"""Scores to probabilities and to decisions: softmax for one class per image, a sigmoid per class for several.

The temperature divides the scores first; it never changes which class of a softmax is the largest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

DEFAULT_THRESHOLD = 0.5


def log_softmax(logits_NK: npt.ArrayLike, *, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Logarithm of the softmax over the last axis, in double precision; exact where the softmax itself underflows."""
    scaled_NK = np.asarray(logits_NK, dtype=np.float64) / temperature
    shifted_NK = scaled_NK - scaled_NK.max(axis=-1, keepdims=True)
    normalised: npt.NDArray[np.float64] = shifted_NK - np.log(np.exp(shifted_NK).sum(axis=-1, keepdims=True))
    return normalised


def softmax(logits_NK: npt.ArrayLike, *, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities that sum to one over the last axis."""
    return np.exp(log_softmax(logits_NK, temperature=temperature))


def log_sigmoid(logits_NK: npt.ArrayLike, *, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Logarithm of the sigmoid, without overflow at either end."""
    scaled_NK = np.asarray(logits_NK, dtype=np.float64) / temperature
    return -np.logaddexp(0.0, -scaled_NK)


def sigmoid(logits_NK: npt.ArrayLike, *, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """One independent probability per class."""
    return np.exp(log_sigmoid(logits_NK, temperature=temperature))


def decide(probabilities_NK: Floats, thresholds: Sequence[float] | None) -> npt.NDArray[np.bool_]:
    """Multi-label decisions: a class is present where its probability reaches its threshold (0.5 unless fitted)."""
    limits_K = np.full(probabilities_NK.shape[1], DEFAULT_THRESHOLD) if thresholds is None else np.asarray(thresholds)
    decisions: npt.NDArray[np.bool_] = probabilities_NK >= limits_K
    return decisions
