"""Any Pillow mode to 8-bit RGB as a person sees it: alpha composited, deep integers and floats scaled, never clipped.

``Image.convert("RGB")`` turns 16-bit images white and float images black, and drops alpha. Scaling: 16-bit integers by
their full range (12-bit when no value exceeds 4095: microscopes and DICOM exports store 12 bits in 16); 32-bit integers
and floats by the smallest usual range that holds them ([0, 1], [0, 255], [0, 65535]), else by their own minimum and
maximum. Which rule applied is returned as a note, so that the data report can say it. Not finite is black.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


class Pixels(NamedTuple):
    """RGB uint8 H W 3 and notes (an empty tuple when nothing had to be decided)."""

    image_HWC: npt.NDArray[np.uint8]
    notes: tuple[str, ...]


def to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Pixels:
    """Decode (``load``) and convert; ``background`` shows through transparent pixels."""
    if image.mode == "F" or image.mode.startswith("I"):
        values_HW = np.asarray(image)
        grey_HW, note = _scaled(values_HW)
        return Pixels(np.repeat(grey_HW[:, :, None], 3, axis=2), (note,))
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):  # an alpha channel that hides nothing
            return Pixels(np.array(rgba.convert("RGB")), ())
        canvas = Image.new("RGBA", rgba.size, (*background, 255))
        canvas.alpha_composite(rgba)
        return Pixels(np.array(canvas.convert("RGB")), ("transparent pixels composited on the background",))
    return Pixels(np.array(image if image.mode == "RGB" else image.convert("RGB")), ())


def _scaled(values_HW: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.uint8], str]:
    """8-bit grey, and the rule that was applied."""
    is_float = values_HW.dtype.kind == "f"
    is_16_bit = values_HW.dtype.itemsize == 2
    finite_HW = np.nan_to_num(values_HW.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite_HW.min()), float(finite_HW.max())
    if is_16_bit:
        floor, ceiling = (0.0, 4095.0) if high <= 4095 else (0.0, 65535.0)
        note = f"16-bit values scaled from 0..{ceiling:.0f}"
    else:
        limits = (1.0, 255.0, 65535.0) if is_float else (255.0, 65535.0)
        fitting = [limit for limit in limits if low >= 0 and high <= limit]
        floor, ceiling = (0.0, fitting[0]) if fitting else (low, high)
        note = f"{'float' if is_float else '32-bit'} values scaled from {floor:g}..{ceiling:g}"
    span = ceiling - floor
    if span <= 0 or not np.isfinite(span):
        return np.zeros(finite_HW.shape, dtype=np.uint8), note + " (no contrast)"
    finite_HW -= floor
    finite_HW *= 255.0 / span
    return np.clip(np.rint(finite_HW), 0, 255).astype(np.uint8), note
