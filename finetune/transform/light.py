"""Crops and mirror images only: safe for nearly every subject, and cheap (under 1 ms beside the resizing).

For few epochs, frozen backbones and images whose colours carry the class. Say ``transform.hflip=0`` where left and
right matter (letters, traffic signs).
"""

from __future__ import annotations

import albumentations as A

from finetune.preprocessing import Preprocessing
from finetune.ranges import NotNegative, PositiveShare, Share
from finetune.transform.pipeline import Augmentation, require_shares


class Light(Augmentation):
    """Random resized crop and horizontal flip."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        min_area: PositiveShare = 0.5,
        hflip: Share = 0.5,
        vflip: Share = 0.0,
        mixup_alpha: NotNegative = 0.0,
        cutmix_alpha: NotNegative = 0.0,
    ) -> None:
        require_shares(min_area=min_area, hflip=hflip, vflip=vflip)
        steps = [A.HorizontalFlip(p=hflip), A.VerticalFlip(p=vflip)]
        super().__init__(preprocessing, min_area, steps, mixup_alpha, cutmix_alpha)
