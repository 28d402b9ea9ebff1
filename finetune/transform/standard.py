"""The default: crops, mirror images, small rotations and changes of colour (about 1 ms an image at 224 px).

Strong enough that a few hundred images last for tens of epochs, mild enough that no class changes into another. The
crop's least area is larger than ImageNet's 0.08: with few images, a crop without the subject is a wrong label.
"""

from __future__ import annotations

import albumentations as A
import cv2

from finetune.preprocessing import Preprocessing
from finetune.ranges import NotNegative, PositiveShare, Share
from finetune.transform.pipeline import Augmentation, require_shares


class Standard(Augmentation):
    """Random resized crop, flips, rotation by up to ``rotate_deg``, and jitter of the colours."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        min_area: PositiveShare = 0.35,
        hflip: Share = 0.5,
        vflip: Share = 0.0,
        rotate_deg: NotNegative = 10.0,
        jitter: Share = 0.2,
        hue: Share = 0.03,
        mixup_alpha: NotNegative = 0.0,
        cutmix_alpha: NotNegative = 0.0,
    ) -> None:
        require_shares(min_area=min_area, hflip=hflip, vflip=vflip, jitter=jitter, hue=hue)
        steps = [
            A.HorizontalFlip(p=hflip),
            A.VerticalFlip(p=vflip),
            A.Affine(rotate=(-rotate_deg, rotate_deg), border_mode=cv2.BORDER_REFLECT_101, p=0.5),
            A.ColorJitter(_around_one(jitter), _around_one(jitter), _around_one(jitter), (-hue, hue), p=0.8),
        ]
        super().__init__(preprocessing, min_area, steps, mixup_alpha, cutmix_alpha)


def _around_one(spread: float) -> tuple[float, float]:
    return (1.0 - spread, 1.0 + spread)
