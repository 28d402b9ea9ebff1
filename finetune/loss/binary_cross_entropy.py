"""One yes-or-no question per class: the loss for several labels an image, and an alternative for one.

With one label an image it often matches cross-entropy and mixes well with mixup and cutmix, as in "ResNet strikes back"
(Wightman et al. 2021, arXiv:2110.00476). Smoothing draws each answer towards one half.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from finetune.loss.weighting import as_distribution, weights_of
from finetune.ranges import ShareBelowOne


class BinaryCrossEntropy(nn.Module):
    """Mean over images and classes of the binary cross-entropy, class k weighted by ``w_k``."""

    weights_K: Tensor

    def __init__(
        self,
        class_counts_K: Tensor,
        *,
        label_smoothing: ShareBelowOne = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weights_K", weights_of(class_counts_K, class_weights), persistent=False)

    def forward(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        """Targets are class numbers B, or float B K with any number of ones a row."""
        targets_BK = as_distribution(targets, logits_BK.shape[1], 0.0)
        targets_BK = targets_BK * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        return F.binary_cross_entropy_with_logits(logits_BK, targets_BK, weight=self.weights_K)
