"""Cosine similarity to one learned direction per class, times a learned scale.

For few images a class and for imbalance: a class cannot win by the length of its weight vector. D x K + 1 parameters.
Sources: Gidaris and Komodakis 2018 (arXiv:1804.09458); Chen et al. 2019, Baseline++ (arXiv:1904.04232).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.ranges import Positive, ShareBelowOne


class CosineHead(nn.Module):
    """``logits = scale * cos(features, direction)``; ``scale`` is where the learned scale starts."""

    def __init__(
        self, in_features: int, num_classes: int, *, scale: Positive = 16.0, dropout: ShareBelowOne = 0.0
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.directions = nn.Linear(in_features, num_classes, bias=False)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits B K in [-scale, scale]."""
        features_BD = F.normalize(self.dropout(features_BD), dim=1)
        cosines_BK = F.linear(features_BD, F.normalize(self.directions.weight, dim=1))
        return self.scale * cosines_BK
