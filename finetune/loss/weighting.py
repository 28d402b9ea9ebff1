"""What the losses share: weights and prior against imbalance, and targets as distributions.

Weights come from the training split alone. ``balanced`` is N / (K n_k), as in scikit-learn: a class with few images
counts more, and the mean weight over the images is 1, so the learning rate keeps its meaning.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from finetune.errors import DataError

ClassWeights = Literal["none", "balanced"]


def weights_of(class_counts_K: Tensor, class_weights: ClassWeights) -> Tensor:
    """Weights K, float32.

    Raises:
        DataError: ``balanced`` is asked for and a class has no training image.
    """
    counts_K = class_counts_K.to(torch.float32)
    if class_weights == "none":
        return torch.ones_like(counts_K)
    _refuse_empty(counts_K, "loss.class_weights=balanced", "weight", "loss.class_weights=none")
    return counts_K.sum() / (len(counts_K) * counts_K)


def log_prior(class_counts_K: Tensor, tau: float) -> Tensor:
    """``tau log(n_k / N)``, K, float32; zeros for ``tau=0``.

    Raises:
        DataError: ``tau`` is above 0 and a class has no training image.
    """
    counts_K = class_counts_K.to(torch.float64)
    if tau == 0:
        return torch.zeros_like(counts_K, dtype=torch.float32)
    _refuse_empty(counts_K, f"loss.logit_adjustment={tau:g}", "prior", "loss.logit_adjustment=0")
    return (tau * (counts_K / counts_K.sum()).log()).float()


def as_distribution(targets: Tensor, num_classes: int, label_smoothing: float) -> Tensor:
    """Targets as float B K: one-hot where they are class numbers, then smoothed towards uniform."""
    targets_BK = targets if targets.is_floating_point() else F.one_hot(targets, num_classes).float()
    return targets_BK * (1.0 - label_smoothing) + label_smoothing / num_classes


def _refuse_empty(counts_K: Tensor, typed: str, lacking: str, instead: str) -> None:
    empty = torch.nonzero(counts_K == 0).flatten().tolist()
    if empty:
        raise DataError(
            f"{typed}: {len(empty)} of {len(counts_K)} classes have no training image "
            f"(the first is number {empty[0]} in the class list), so they have no {lacking}; "
            f"add images, remove the class, or say {instead}"
        )
