"""Test-time augmentation: the same picture seen several times, its scores averaged.

``flip`` adds the mirror image, ``crops`` takes the four corners beside the centre, ``flip_crops`` both. Costs 2, 5
and 10 forward passes an image; a flip is worth a few tenths of a percent on photographs and is wrong for text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from finetune.preprocessing import Preprocessing

Tta = Literal["none", "flip", "crops", "flip_crops"]
Image = npt.NDArray[np.uint8]


def views(image_HWC: Image, preprocessing: Preprocessing, tta: Tta) -> list[Image]:
    """The network's inputs (uint8, ``preprocessing.size``) for one decoded image, the plain one first."""
    found = [preprocessing.resize_crop(image_HWC)]
    if tta in ("crops", "flip_crops"):
        found += _corners(image_HWC, preprocessing)
    if tta in ("flip", "flip_crops"):
        found += [view[:, ::-1] for view in found]
    return found


def _corners(image_HWC: Image, preprocessing: Preprocessing) -> list[Image]:
    """The four corners of the resized image; they meet the centre where there is nothing around it to see."""
    whole = preprocessing.resize_size(*image_HWC.shape[:2])
    resized_HWC = replace(preprocessing, size=whole, crop_pct=1.0, crop_mode="squash").resize_crop(image_HWC)
    height, width = preprocessing.size
    bottom, right = whole[0] - height, whole[1] - width
    return [resized_HWC[top : top + height, left : left + width] for top in (0, bottom) for left in (0, right)]
