"""What one file turned out to be, as a fixed-size record: readable or not, its shape, its hash and its likeness.

A file is read once: hashed, decoded at the smallest scale that still reads every coefficient (so damage anywhere in a
JPEG's scan is seen), and described by ``near.describe``. Records of a data set form one NumPy array; the few texts
beside them (reasons, damage, notes) are numbered. Cost: less than decoding the file at full size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from finetune.data.image import decode, read_bytes
from finetune.data.near import COARSE_NUMBERS, FINE_NUMBERS, describe
from finetune.errors import ImageError

RECORD = np.dtype(
    [
        ("readable", np.bool_),
        ("comparable", np.bool_),  # has enough contrast to be likened to others
        ("orientation", np.uint8),
        ("height", np.int32),
        ("width", np.int32),
        ("format", np.int32),  # this and the three below: numbers of texts
        ("mode", np.int32),
        ("damage", np.int32),
        ("note", np.int32),
        ("reason", np.int32),
        ("sha256", np.uint8, (32,)),
        ("coarse", np.float16, (COARSE_NUMBERS,)),
        ("fine", np.int8, (FINE_NUMBERS,)),
    ]
)
TEXTS = ("format", "mode", "damage", "note", "reason")
_DECODE_PX = 32
"""Twice the grid of a likeness; JPEGs are decoded at the smallest scale that keeps the short side above."""


@dataclass
class Verdicts:
    """Records in table order, and the texts that they number (text 0 is empty)."""

    records: npt.NDArray[np.void]
    texts: list[str] = field(default_factory=lambda: [""])
    numbers: dict[str, int] = field(default_factory=lambda: {"": 0})

    @classmethod
    def empty(cls, count: int) -> Verdicts:
        """Records still to be filled."""
        return cls(np.zeros(count, dtype=RECORD))

    def number(self, text: str) -> int:
        """The number of a text, new or known."""
        found = self.numbers.setdefault(text, len(self.texts))
        if found == len(self.texts):
            self.texts.append(text)
        return found

    def put(self, row: int, record: npt.NDArray[np.void], texts: Sequence[str]) -> None:
        """Store one examined file; ``texts`` in the order of ``TEXTS``."""
        self.records[row] = record
        for name, text in zip(TEXTS, texts, strict=True):
            self.records[row][name] = self.number(text)

    def text(self, row: int, name: str) -> str:
        """One of ``TEXTS`` of a row."""
        return self.texts[int(self.records[row][name])]


def examine_file(path: str) -> tuple[npt.NDArray[np.void], list[str]]:
    """Record of one file and its texts. Raises nothing: whatever is wrong is the verdict."""
    record = np.zeros((), dtype=RECORD)
    try:
        data = read_bytes(path)
        record["sha256"] = np.frombuffer(hashlib.sha256(data).digest(), dtype=np.uint8)
        decoded = decode(data, min_size_px=_DECODE_PX)
    except ImageError as error:
        return record, ["", "", "", "", error.reason]
    record["readable"] = True
    record["orientation"] = decoded.orientation
    record["height"], record["width"] = decoded.size
    likeness = describe(decoded.image_HWC)
    if likeness is not None:
        record["comparable"], record["coarse"], record["fine"] = True, likeness.coarse, likeness.fine
    return record, [decoded.format, decoded.mode, "; ".join(decoded.damage), "; ".join(decoded.notes), ""]


def lost_file(reason: str) -> tuple[npt.NDArray[np.void], list[str]]:
    """The record of a file whose examination ended the process that did it."""
    return np.zeros((), dtype=RECORD), ["", "", "", "", reason]
