"""The one image loader: train, check, evaluate, predict and the exporters' parity test read images here only.

What a person sees, as RGB uint8: EXIF orientation applied, alpha composited, deep and float images scaled, the first
frame of an animation; the format decided by content. Nothing is opened that could block (FIFO, device), nothing is
decoded that would not fit in memory. A JPEG whose picture is incomplete is an error; one whose scan is damaged, or that
only lacks its end marker, is decoded and noted. Much larger sources are decoded at a reduced scale (libjpeg's scaled
DCT): a 12-megapixel photograph for a 256 px network costs a quarter to a tenth. Cost otherwise: libjpeg-turbo's.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from finetune.data.exif import is_progressive, orientation_of_jpeg, orientation_of_tiff, upright
from finetune.data.pixels import to_rgb
from finetune.errors import ImageError

MAX_PIXELS = 89_478_485
"""Pillow's own limit for an image that is no decompression bomb: a quarter of a GiB as RGB."""
MAX_BYTES = 1 << 29
MAX_JPEG_SCANS = 500
"""Real progressive files have about ten scans; each costs a pass over all coefficients."""
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000"),
    *("PPM", "ICO", "PCX", "SGI", "QOI", "DDS"),
)
"""Pillow plugins that are tried; left out on purpose: EPS and PDF (run other programs), formats without a signature."""
_PNG_END = b"IEND\xaeB`\x82"
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


class Decoded(NamedTuple):
    """An image and what there is to know about its file."""

    image_HWC: npt.NDArray[np.uint8]
    format: str
    mode: str
    size: tuple[int, int]
    """Height and width of the whole image, upright, before any reduced decoding."""
    orientation: int
    notes: tuple[str, ...]
    """How values were scaled or composited: nothing wrong."""
    damage: tuple[str, ...]
    """What is suspect: damaged scan, missing end marker, bytes after the end."""


def read_image(
    source: str | Path | bytes,
    *,
    min_size_px: int | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """RGB uint8 image H W 3, contiguous. Raises ``ImageError`` for anything that is not a whole image.

    ``min_size_px``: the caller will resize so that the short side has at least this many pixels; a larger JPEG may be
    decoded smaller, never below it.
    """
    return decode(source, min_size_px=min_size_px, background=background, max_pixels=max_pixels).image_HWC


def decode(
    source: str | Path | bytes,
    *,
    min_size_px: int | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """As ``read_image``, with what is known about the file."""
    name = "<bytes>" if isinstance(source, bytes) else os.fspath(source)
    data = source if isinstance(source, bytes) else read_bytes(source)
    if not data:
        raise ImageError(name, "the file is empty (0 bytes)")
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _decode_jpeg(name, data, min_size_px, background, max_pixels)
        return _decode_other(name, data, background, max_pixels)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(name, "decoding it needs more memory than there is") from error
    except Exception as error:  # a decoder may raise anything on foreign bytes
        raise ImageError(name, _reason(error)) from error


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file; never blocks on a FIFO or a device. Raises ``ImageError``."""
    name = os.fspath(path)
    try:
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise ImageError(name, getattr(error, "strerror", None) or str(error)) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(name, "is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(name, f"has {status.st_size:,} bytes; at most {MAX_BYTES:,} are read")
        try:
            return file.read()
        except OSError as error:
            raise ImageError(name, error.strerror or str(error)) from error


def _decode_jpeg(
    name: str, data: bytes, min_size_px: int | None, background: tuple[int, int, int], max_pixels: int
) -> Decoded:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # arithmetic coding, 12 bits, lossless: Pillow knows more of them, or says why not
        return _decode_other(name, data, background, max_pixels)
    _check_pixels(name, height, width, max_pixels)
    if is_progressive(data) and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise ImageError(name, f"has more than {MAX_JPEG_SCANS} JPEG scans: a decompression bomb")
    inks = colorspace in ("CMYK", "YCCK")
    # four inks become RGB in Pillow; here their scan is only checked, at the lowest resolution
    wanted = 1 if inks else min_size_px if min_size_px is not None and min(height, width) > min_size_px else 0
    target = "CMYK" if inks else "RGB"
    damage: list[str] = []
    try:
        image_HWC = simplejpeg.decode_jpeg(data, target, min_height=wanted, min_width=wanted, strict=True)
    except ValueError as error:
        damage.append(_jpeg_damage(name, data, str(error), target))
        if not inks:
            image_HWC = simplejpeg.decode_jpeg(data, "RGB", min_height=wanted, min_width=wanted, strict=False)
    damage.extend(_after_end(data, b"\xff\xd9") if not damage else [])
    if inks:
        return _decode_other(name, data, background, max_pixels)._replace(damage=tuple(damage))
    orientation = orientation_of_jpeg(data)
    size = (width, height) if orientation >= 5 else (height, width)
    mode = "L" if colorspace == "Gray" else "RGB"
    return Decoded(upright(image_HWC, orientation), "JPEG", mode, size, orientation, (), tuple(damage))


def _jpeg_damage(name: str, data: bytes, reason: str, target: str) -> str:
    """What is wrong with a JPEG that strict decoding refused; raises when a part of the picture is missing."""
    if "Premature end of JPEG file" not in reason:
        return f"damaged JPEG scan ({reason})"
    try:
        simplejpeg.decode_jpeg(data + b"\xff\xd9", target, min_height=1, min_width=1, strict=True)
    except ValueError as error:
        reason = f"the JPEG file is cut off after {len(data):,} bytes: a part of the picture is missing"
        raise ImageError(name, reason) from error
    return "the JPEG file lacks its end marker; the picture is whole"


def _after_end(data: bytes, end: bytes) -> list[str]:
    """Bytes behind the last end marker (padding, appended files), as damage."""
    if data.endswith(end):
        return []
    if end not in data:
        return ["the end marker is missing"]
    return [f"{len(data) - data.rfind(end) - len(end):,} bytes follow the end of the image"]


def _decode_other(name: str, data: bytes, background: tuple[int, int, int], max_pixels: int) -> Decoded:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[8:64]:
        image, orientation = _open_heif(name, data, max_pixels), 1  # libheif turns the image itself
    else:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(name, image.height, image.width, max_pixels)
        orientation = _orientation(image)
    mode, kind = image.mode, image.format or "HEIF"
    pixels = to_rgb(image, background)
    del image  # the decoder's copy goes before the turned one is made
    image_HWC = upright(pixels.image_HWC, orientation)
    damage = tuple(_after_end(data, _PNG_END)) if kind == "PNG" else ()
    return Decoded(image_HWC, kind, mode, (image_HWC.shape[0], image_HWC.shape[1]), orientation, pixels.notes, damage)


def _open_heif(name: str, data: bytes, max_pixels: int) -> Image.Image:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(name, "is HEIC; reading it needs: pip install 'finetune[heic]'") from error
    heif = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    _check_pixels(name, heif.size[1], heif.size[0], max_pixels)
    image: Image.Image = heif.to_pillow()
    return image


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        value = image.tag_v2.get(274, 1)  # type: ignore[attr-defined]
        return int(value) if value in range(1, 9) else 1
    block = image.info.get("exif")
    return orientation_of_tiff(block) if isinstance(block, bytes) else 1


def _check_pixels(name: str, height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        limit = f"at most {max_pixels:,} are decoded (decompression bombs)"
        raise ImageError(name, f"has {height} x {width} = {height * width:,} pixels; {limit}")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its content is no image format that is read here"
    if isinstance(error, Image.DecompressionBombError):
        return "has too many pixels: a decompression bomb"
    text = str(error).strip() or type(error).__name__
    return f"cannot be decoded ({text})"
