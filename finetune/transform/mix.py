"""Mixup and cutmix of whole batches, by torchvision, drawing from torch's global generator.

The model seeds that generator per step, so a resumed run mixes as the uninterrupted one would have. With both asked
for, each batch gets one of them, half and half. Sources: Zhang et al. 2018 (arXiv:1710.09412), Yun et al. 2019
(arXiv:1905.04899).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2


class Mix:
    """Callable on ``(images_BCHW, targets)``; targets come back as float B K."""

    def __init__(self, num_classes: int, *, mixup_alpha: float, cutmix_alpha: float) -> None:
        self.num_classes = num_classes
        self.methods: list[v2.Transform] = []
        if mixup_alpha > 0:
            self.methods.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
        if cutmix_alpha > 0:
            self.methods.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))
        if not self.methods:
            raise ValueError("mixing needs transform.mixup_alpha or transform.cutmix_alpha above 0")

    def __call__(self, images_BCHW: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """``targets`` are int64 B, or float B K for multi-label data, mixed as they are."""
        choice = int(torch.randint(len(self.methods), ())) if len(self.methods) > 1 else 0
        targets_BK = targets if targets.is_floating_point() else F.one_hot(targets, self.num_classes).float()
        mixed_BCHW, mixed_BK = self.methods[choice](images_BCHW, targets_BK)
        return mixed_BCHW, mixed_BK
