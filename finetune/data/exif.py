"""EXIF orientation: which way up a photograph was taken, and turning the pixels accordingly.

Phones store the sensor's pixels and a number from 1 to 8 beside them. Pillow ignores it, OpenCV applies it for JPEG:
the same file would look different in training and in deployment. Read here without Pillow's EXIF classes, which warn
(a process-wide effect) about the many slightly broken EXIF blocks of real photographs. Cost: microseconds.
Source: Exif 2.32 (JEITA CP-3451), tag 0x0112 of IFD0; TIFF 6.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_ORIENTATION_TAG = 0x0112
_NO_PAYLOAD = {0x01, *range(0xD0, 0xD9)}


def orientation_of_tiff(block: bytes) -> int:
    """Orientation 1-8 in a TIFF-structured EXIF block, with or without its ``Exif`` prefix; 1 when there is none."""
    block = block[6:] if block[:6] == b"Exif\0\0" else block
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 10:
        return 1
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(order + "H", block, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        if tag == _ORIENTATION_TAG:
            (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), block, entry + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment of a JPEG file's header, up to the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _NO_PAYLOAD:
            position += 2
            continue
        if marker in (0xDA, 0xD9):  # start of scan, end of image
            return
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position + 4, end
        position = end


def orientation_of_jpeg(data: bytes) -> int:
    """Orientation 1-8 of a JPEG file's first EXIF segment; 1 when there is none or it is damaged."""
    for marker, start, end in jpeg_segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            return orientation_of_tiff(data[start:end])
    return 1


def is_progressive(data: bytes) -> bool:
    """Whether a JPEG file's frame is stored in several passes."""
    return any(marker in (0xC2, 0xC6, 0xCA, 0xCE) for marker, _, _ in jpeg_segments(data))


def upright(image_HWC: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """The image as it was seen; orientations 5 to 8 exchange height and width. Any trailing dimensions."""
    if orientation in (5, 6, 7, 8):
        image_HWC = np.swapaxes(image_HWC, 0, 1)
    if orientation in (3, 4, 7, 8):
        image_HWC = image_HWC[::-1]
    if orientation in (2, 3, 6, 7):
        image_HWC = image_HWC[:, ::-1]
    return np.ascontiguousarray(image_HWC)
