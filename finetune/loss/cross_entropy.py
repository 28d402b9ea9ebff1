"""Cross-entropy over the classes: the default for one label an image.

Label smoothing keeps the logits small and helps calibration (Szegedy et al. 2016, arXiv:1512.00567; 0.1 is common).
``class_weights=balanced`` counts images of rare classes more; a balanced sampler is the other way to the same end.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from finetune.loss.weighting import weights_of
from finetune.ranges import ShareBelowOne


class CrossEntropy(nn.Module):
    """torch's cross-entropy; mixed targets (float B K) are taken as distributions."""

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
        """Mean over the batch; with class numbers and weights, the weighted mean."""
        return F.cross_entropy(logits_BK, targets, self.weights_K, label_smoothing=self.label_smoothing)
