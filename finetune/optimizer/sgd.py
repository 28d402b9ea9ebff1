"""SGD with Nesterov momentum (Sutskever et al. 2013): half of AdamW's memory; wants a learning rate tuned to the data."""

from __future__ import annotations

from typing import Literal

from torch import optim

from finetune.optimizer.groups import Group, rate_of
from finetune.ranges import NotNegative, Positive, PositiveShare, ShareBelowOne


class SGD:
    """Called with parameter groups, gives the optimizer; ``layer_decay`` is read when the groups are made."""

    def __init__(
        self,
        *,
        lr: Positive | Literal["auto"] = 0.01,
        weight_decay: NotNegative = 1e-4,
        layer_decay: PositiveShare = 1.0,
        momentum: ShareBelowOne = 0.9,
        nesterov: bool = True,
    ) -> None:
        self.lr = rate_of(lr)
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.momentum = momentum
        self.nesterov = nesterov

    def __call__(self, groups: list[Group]) -> optim.SGD:
        """An optimizer over ``groups``; torch's fused implementation."""
        return optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True)
