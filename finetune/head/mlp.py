"""One hidden layer between the features and the classes.

For a backbone that stays frozen while the classes are not linearly separable in its features; with fine-tuning it
seldom beats ``linear``. About D x hidden parameters. LayerNorm makes it independent of the scale of the features, which
differs by a factor of ten between families.
"""

from __future__ import annotations

from torch import Tensor, nn

from finetune.ranges import Count, ShareBelowOne


class MLPHead(nn.Module):
    """LayerNorm, linear, GELU, dropout, linear."""

    def __init__(
        self, in_features: int, num_classes: int, *, hidden: Count = 512, dropout: ShareBelowOne = 0.1
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(in_features),
            nn.Linear(in_features, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits B K."""
        logits_BK: Tensor = self.layers(features_BD)
        return logits_BK
