"""From a decoded image to the network's input: the one definition used by train, cache, evaluate, predict and export.

The geometry is timm's evaluation transform (``timm.data.create_transform(..., is_training=False)``): resize so that the
short side is ``size / crop_pct`` with an antialiased kernel, then cut the centre. Resizing is Pillow's, because the
weights were trained with it; OpenCV's kernels do not antialias when they shrink.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
_KERNELS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """Size (height, width) in pixels, centre crop, kernel, and normalisation on the [0, 1] scale; plain data."""

    size: tuple[int, int] = (224, 224)
    crop_pct: float = 0.875
    crop_mode: Literal["center", "squash"] = "center"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    background: tuple[int, int, int] = (255, 255, 255)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for a checkpoint or a JSON file."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """The inverse of ``to_dict``."""
        plain: dict[str, Any] = {key: tuple(val) if isinstance(val, list) else val for key, val in fields.items()}
        return cls(**plain)

    def resize_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) to which an image of ``height`` x ``width`` is resized before the crop."""
        target_height, target_width = self.size
        scaled_height = math.floor(target_height / self.crop_pct)
        scaled_width = math.floor(target_width / self.crop_pct)
        if self.crop_mode == "squash":
            return scaled_height, scaled_width
        if scaled_height == scaled_width:  # as torchvision's Resize(int): the short side exact, the long side truncated
            if height <= width:
                return scaled_height, int(scaled_height * width / height)
            return int(scaled_width * height / width), scaled_width
        # as timm's ResizeKeepRatio (longest=0): both sides at least the target
        ratio = min(height / scaled_height, width / scaled_width)
        return round(height / ratio), round(width / ratio)

    @property
    def min_source_px(self) -> int:
        """Short side to which a decoder may shrink a source: twice what the crop needs.

        From there on the resize decides what is seen, so that a reader without scaled decoding (a served export) sees
        nearly the same; Pillow's ``reducing_gap`` draws the line at 2 too.
        """
        return 2 * math.floor(max(self.size) / self.crop_pct)

    def resize_crop(self, image_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize and centre-crop a uint8 RGB image (H W 3, any size) to ``self.size``."""
        height, width = image_HWC.shape[:2]
        new_height, new_width = self.resize_size(height, width)
        pil = Image.fromarray(image_HWC)
        if (new_height, new_width) != (height, width):
            pil = pil.resize((new_width, new_height), _KERNELS[self.interpolation])
        target_height, target_width = self.size
        # torchvision's CenterCrop: pad with zeros where the image is smaller, then round half to even
        top = round((new_height - target_height) / 2.0)
        left = round((new_width - target_width) / 2.0)
        cropped = pil.crop((left, top, left + target_width, top + target_height))
        return np.asarray(cropped, dtype=np.uint8)

    def normalize(self, images_BCHW: Tensor) -> Tensor:
        """uint8 images to float32 with this mean and standard deviation, on their own device, in channels-last memory.

        Computed row of pixels by row of pixels: over three channels at a time it takes seven times as long.
        """
        images_BHWC = images_BCHW.permute(0, 2, 3, 1).contiguous()
        width = images_BHWC.shape[2]
        mean_R, std_R = (
            torch.tensor(values, device=images_BCHW.device).repeat(width) for values in (self.mean, self.std)
        )
        rows_BHR = images_BHWC.flatten(2).float().div_(255.0).sub_(mean_R).div_(std_R)
        return rows_BHR.view(images_BHWC.shape).permute(0, 3, 1, 2)
