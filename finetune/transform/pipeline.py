"""The adapter to albumentations: seeded per image, resized with antialiasing, uint8 in and out.

albumentations gives every worker the same stream and repeats it every epoch unless it is told otherwise; here each
call carries its seed, so an image's augmentation depends on nothing but (run, epoch, image). Its resizing is OpenCV's
and does not antialias when it shrinks; the crop is therefore resized by torch's kernels for bytes (as torchvision does
it), with the kernel of the weights: Pillow's result to two levels of 255 on noise, in a fifth of Pillow's time.

Source: Buslaev et al. 2020 (arXiv:1809.06839); version 2.0.8 is the last one under the MIT licence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from finetune.errors import ConfigError
from finetune.preprocessing import Preprocessing

RATIO = (3 / 4, 4 / 3)
_ON_BYTES = ("bilinear", "bicubic")
"""Kernels that torch has for bytes."""


def require_shares(**shares: float) -> None:
    """Raise one ``ConfigError`` that names every value outside [0, 1] (``min_area``: outside (0, 1])."""
    wrong = [name for name, share in shares.items() if not (0 < share <= 1 or (share == 0 and name != "min_area"))]
    if wrong:
        given = ", ".join(f"transform.{name}={shares[name]}" for name in wrong)
        raise ConfigError(
            f"{given}: a share between 0 and 1 is expected" + (" (min_area above 0)" * ("min_area" in wrong))
        )


class AntialiasedCrop(A.RandomResizedCrop):
    """albumentations' choice of a random box, cut and resized with an antialiased kernel."""

    def __init__(self, size: tuple[int, int], min_area: float, interpolation: str) -> None:
        super().__init__(size=size, scale=(min_area, 1.0), ratio=RATIO)
        self.interpolation = interpolation

    def apply(
        self, img: npt.NDArray[np.uint8], crop_coords: tuple[int, int, int, int], **params: Any
    ) -> npt.NDArray[np.uint8]:
        """Cut ``crop_coords`` (left, top, right, bottom) and resize it to ``size`` (height, width)."""
        left, top, right, bottom = crop_coords
        return resized(img[top:bottom, left:right], self.size, self.interpolation)


def resized(image_HWC: npt.NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> npt.NDArray[np.uint8]:
    """A uint8 image at another ``size`` (height, width), antialiased where it shrinks."""
    if interpolation not in _ON_BYTES:
        kernel = Image.Resampling[interpolation.upper()]
        return np.array(Image.fromarray(image_HWC).resize(size[::-1], kernel), dtype=np.uint8)
    image_CHW = torch.from_numpy(np.require(image_HWC, requirements=("C", "W"))).permute(2, 0, 1)
    output_BCHW = nn.functional.interpolate(image_CHW[None], size, mode=interpolation, antialias=True)
    output_HWC: npt.NDArray[np.uint8] = cv2.merge(list(output_BCHW[0].numpy()))  # a twentieth of NumPy's transposition
    return output_HWC


class Augmentation:
    """A random resized crop of at least ``min_area`` of the image, then ``steps``.

    ``mixup_alpha`` and ``cutmix_alpha`` are the batch's part of the recipe, see ``mix.py``.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        min_area: float,
        steps: Sequence[A.BasicTransform | A.BaseCompose],
        mixup_alpha: float,
        cutmix_alpha: float,
    ) -> None:
        self.preprocessing = preprocessing
        self.min_area = min_area
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        crop = AntialiasedCrop(preprocessing.size, min_area, preprocessing.interpolation)
        self.pipeline = A.Compose([crop, *steps])

    @property
    def min_source_px(self) -> int:
        """A decoder may shrink to this short side: even the smallest crop is then no smaller than the output."""
        return math.ceil(max(self.preprocessing.size) / math.sqrt(self.min_area * RATIO[0]))

    def __call__(self, image_HWC: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
        """The same image and seed give the same result in any process."""
        self.pipeline.set_random_seed(seed)
        augmented: npt.NDArray[np.uint8] = self.pipeline(image=image_HWC)["image"]
        return augmented
