"""Small pictures for the page as data URIs, until the page's budget is spent.

An image is shown as the network sees it (resized and cropped). WebP at 112 px costs 2 to 4 kB.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

Image = npt.NDArray[np.uint8]


class Thumbnails:
    """Data URIs by key; ``add`` refuses once ``max_bytes`` of text are used, and says so."""

    def __init__(self, *, size_px: int, max_bytes: int) -> None:
        self.size_px = size_px
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.uris: dict[str, str] = {}

    def add(self, key: str, image_HWC: Image) -> bool:
        """Keep a small copy of the image; False when the budget does not allow it."""
        if key in self.uris:
            return True
        uri = encode(image_HWC, self.size_px)
        if self.used_bytes + len(uri) > self.max_bytes:
            return False
        self.uris[key] = uri
        self.used_bytes += len(uri)
        return True


def encode(image_HWC: Image, size_px: int) -> str:
    """A WebP data URI whose long side has at most ``size_px`` pixels."""
    pillow = PillowImage.fromarray(image_HWC)
    pillow.thumbnail((size_px, size_px), PillowImage.Resampling.BICUBIC)
    buffer = io.BytesIO()
    pillow.save(buffer, "WEBP", quality=72, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def overlay(image_HWC: Image, map_HW: npt.NDArray[np.float32]) -> Image:
    """The image in grey with the map over it, warm where the map is high."""
    from matplotlib import colormaps

    grey_HW1 = image_HWC.mean(axis=2, keepdims=True) / 255.0
    heat_HWC = colormaps["inferno"](map_HW)[..., :3]
    strength_HW1 = 0.25 + 0.5 * map_HW[..., None]
    mixed_HWC = (1 - strength_HW1) * grey_HW1 + strength_HW1 * heat_HWC
    return np.asarray(np.clip(mixed_HWC * 255, 0, 255), dtype=np.uint8)
