"""Any Pillow mode to 8-bit RGB as a person sees it: alpha composited, deep integers and floats scaled, never clipped.

``Image.convert("RGB")`` turns 16-bit images white and float images black, and drops alpha. Scaling: 16-bit integers by
their full range (12-bit when no value exceeds 4095: microscopes and DICOM exports store 12 bits in 16); 32-bit integers
and floats by the smallest usual range that holds them ([0, 1], [0, 255], [0, 65535]), else by their own minimum and
maximum. Which rule applied is returned as a note, so that the data report can say it. Not finite is black.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

_STRIP_PIXELS = 1 << 21
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


class Pixels(NamedTuple):
    """RGB uint8 H W 3 and notes (an empty tuple when nothing had to be decided)."""

    image_HWC: npt.NDArray[np.uint8]
    notes: tuple[str, ...]


def to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Pixels:
    """Decode (``load``) and convert; ``background`` shows through transparent pixels.

    Works in strips, so that the largest image needs the decoder's copy and the result, not five copies.
    """
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(image)
    transparent = image.mode in _TRANSPARENT or "transparency" in image.info
    image_HWC = np.empty((image.height, image.width, 3), dtype=np.uint8)
    shows_background = False
    for top, bottom in _strips(image):
        strip = image.crop((0, top, image.width, bottom))
        if transparent:
            rgba = strip.convert("RGBA")
            shows_background |= rgba.getchannel("A").getextrema() != (255, 255)
            strip = Image.new("RGBA", rgba.size, (*background, 255))
            strip.alpha_composite(rgba)
        image_HWC[top:bottom] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return Pixels(image_HWC, ("transparent pixels composited on the background",) if shows_background else ())


def _strips(image: Image.Image) -> list[tuple[int, int]]:
    rows = max(1, _STRIP_PIXELS // max(1, image.width))
    return [(top, min(top + rows, image.height)) for top in range(0, image.height, rows)]


def _scaled(image: Image.Image) -> Pixels:
    """Grey values scaled to 8 bits, and the rule that was applied."""
    low, high = math.inf, -math.inf
    for top, bottom in _strips(image):
        values_HW = np.asarray(image.crop((0, top, image.width, bottom)))
        finite = values_HW[np.isfinite(values_HW)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    kind = "float" if image.mode == "F" else "16-bit" if image.mode.startswith("I;16") else "32-bit"
    floor, ceiling = _usual_range(kind, low, high) or (low, high)
    scale = 255.0 / (ceiling - floor) if 0 < ceiling - floor < math.inf else 0.0
    image_HWC = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top, bottom in _strips(image):
        strip_HW = np.asarray(image.crop((0, top, image.width, bottom))).astype(np.float64)
        strip_HW[~np.isfinite(strip_HW)] = floor
        image_HWC[top:bottom] = np.clip(np.rint((strip_HW - floor) * scale), 0, 255).astype(np.uint8)[:, :, None]
    usual = _usual_range(kind, low, high) is not None
    words = f"{floor:g}..{ceiling:g}" if usual else "their own smallest and largest"
    return Pixels(image_HWC, (f"{kind} values scaled from {words}",))


def _usual_range(kind: str, low: float, high: float) -> tuple[float, float] | None:
    """The values that become black and white; None when no usual range holds these."""
    if kind == "16-bit":
        return 0.0, 4095.0 if high <= 4095 else 65535.0
    limits = (1.0, 255.0, 65535.0) if kind == "float" else (255.0, 65535.0)
    fitting = [limit for limit in limits if low >= 0 and high <= limit]
    return (0.0, fitting[0]) if fitting else None
