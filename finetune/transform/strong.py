"""For training from scratch and for long schedules: more of everything, erased patches, mixed batches.

A few random operations an image, in the manner of RandAugment (Cubuk et al. 2020, arXiv:1909.13719), random erasing
(Zhong et al. 2017, arXiv:1708.04896), mixup (arXiv:1710.09412) and cutmix (arXiv:1905.04899). About 2 ms an image at
224 px. In short fine-tuning it costs accuracy.
"""

from __future__ import annotations

import albumentations as A
import cv2

from finetune.preprocessing import Preprocessing
from finetune.ranges import CountOrZero, NotNegative, PositiveShare, Share
from finetune.transform.pipeline import Augmentation, require_shares


class Strong(Augmentation):
    """Random resized crop, flips, ``operations`` random changes, an erased patch with probability ``erase``."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        min_area: PositiveShare = 0.2,
        hflip: Share = 0.5,
        vflip: Share = 0.0,
        operations: CountOrZero = 2,
        erase: Share = 0.25,
        mixup_alpha: NotNegative = 0.2,
        cutmix_alpha: NotNegative = 1.0,
    ) -> None:
        require_shares(min_area=min_area, hflip=hflip, vflip=vflip, erase=erase)
        mirror = cv2.BORDER_REFLECT_101
        changes = [
            A.Affine(rotate=(-25, 25), border_mode=mirror, p=1.0),
            A.Affine(shear=(-15, 15), border_mode=mirror, p=1.0),
            A.Affine(translate_percent=(-0.15, 0.15), border_mode=mirror, p=1.0),
            A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.5, 1.5), (-0.05, 0.05), p=1.0),
            A.ToGray(p=1.0),
            A.Equalize(p=1.0),
            A.Posterize(num_bits=(4, 6), p=1.0),
            A.Sharpen(p=1.0),
            A.GaussianBlur(sigma_limit=(0.5, 1.5), p=1.0),
        ]
        steps = [
            A.HorizontalFlip(p=hflip),
            A.VerticalFlip(p=vflip),
            A.SomeOf(changes, n=operations),
            A.Erasing(scale=(0.02, 0.25), fill="random_uniform", p=erase),
        ]
        super().__init__(preprocessing, min_area, steps, mixup_alpha, cutmix_alpha)
