"""AdamW (Loshchilov and Hutter 2019): the default; forgiving about the learning rate, two extra copies of the weights."""

from __future__ import annotations

from typing import Literal

from torch.optim import AdamW as TorchAdamW

from finetune.optimizer.groups import Group, rate_of
from finetune.ranges import NotNegative, Positive, PositiveShare


class AdamW:
    """Called with parameter groups, gives the optimizer; ``layer_decay`` is read when the groups are made."""

    def __init__(
        self,
        *,
        lr: Positive | Literal["auto"] = 1e-3,
        weight_decay: NotNegative = 0.05,
        layer_decay: PositiveShare = 0.9,
        betas: list[float] | None = None,
    ) -> None:
        self.lr = rate_of(lr)
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.betas = (0.9, 0.999) if betas is None else (betas[0], betas[1])

    def __call__(self, groups: list[Group]) -> TorchAdamW:
        """An optimizer over ``groups``; torch's fused implementation."""
        return TorchAdamW(groups, lr=self.lr, betas=self.betas, fused=True)
