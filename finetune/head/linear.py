"""One linear layer: the head of a linear probe, and the default everywhere.

The right choice with few images or good pretrained features; D x K + K parameters. Kornblith et al. 2019
(arXiv:1805.08974) find that better ImageNet networks have better features for exactly this head.
"""

from __future__ import annotations

from torch import Tensor, nn

from finetune.ranges import ShareBelowOne


class LinearHead(nn.Module):
    """Dropout, then ``logits = features W + b``."""

    def __init__(self, in_features: int, num_classes: int, *, dropout: ShareBelowOne = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits B K."""
        logits_BK: Tensor = self.linear(self.dropout(features_BD))
        return logits_BK
