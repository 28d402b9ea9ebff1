"""Focal loss: cross-entropy in which examples that are already right count less.

For strong imbalance with many easy images. ``gamma=0`` is cross-entropy; 2 is the paper's choice. Expect probabilities
that are less confident than the accuracy. Source: Lin et al. 2017 (arXiv:1708.02002).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from finetune.loss.weighting import as_distribution, weights_of
from finetune.ranges import NotNegative, ShareBelowOne


class Focal(nn.Module):
    """``-sum_k w_k t_k (1 - p_k)^gamma log p_k``, averaged over the batch."""

    weights_K: Tensor

    def __init__(
        self,
        class_counts_K: Tensor,
        *,
        gamma: NotNegative = 2.0,
        label_smoothing: ShareBelowOne = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.register_buffer("weights_K", weights_of(class_counts_K, class_weights), persistent=False)

    def forward(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch."""
        targets_BK = as_distribution(targets, logits_BK.shape[1], self.label_smoothing)
        log_p_BK = F.log_softmax(logits_BK, dim=1)
        # 1 - p by expm1: exact where p is near 1, and its power has a finite gradient for gamma below 1
        easy_BK = (-log_p_BK.expm1()).clamp_min(1e-12).pow(self.gamma)
        return -(self.weights_K * targets_BK * easy_BK * log_p_BK).sum(dim=1).mean()
