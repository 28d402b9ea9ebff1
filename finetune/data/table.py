"""The index of a data set: where each image is, what it shows and which split it belongs to, in a few flat arrays.

About 100 bytes an image and no Python object per image, so that a million images fit in every worker process (and,
forked, are shared: nothing in here has a reference count that is touched by reading). Immutable; every change is a new
table. Row numbers are the ``indices`` of a batch.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "val", "test")
LABEL_SEPARATOR = "|"
"""Between the labels of one image in split.csv and, unless configured otherwise, in the user's CSV files."""
Task = Literal["multiclass", "multilabel"]


@dataclass(frozen=True)
class Source:
    """How the table came about, in words for the report: layout, what was ignored and what is worth a warning."""

    layout: str = ""
    ignored: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of images; ``targets`` is int64 N (-1: unknown) or float32 N K, ``split`` int8 N into SPLITS."""

    root: Path
    classes: tuple[str, ...]
    names: bytes
    """All relative paths one after another, as the file system's bytes; row i ends at ``ends[i]``."""
    ends: npt.NDArray[np.int64]
    targets: npt.NDArray[Any]
    split: npt.NDArray[np.int8]
    sizes: npt.NDArray[np.int64]
    """Bytes of each file when it was listed."""
    modified_ns: npt.NDArray[np.int64]
    task: Task = "multiclass"
    hashes: npt.NDArray[np.uint8] | None = None
    """SHA-256 of each file's bytes, N 32; zeros where unknown."""
    groups: npt.NDArray[np.int64] | None = None
    """Images with an equal number belong together (one patient, one video); None: every image stands alone."""
    source: Source = Source()

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, row: int) -> bytes:
        """Path of a row relative to ``root``, as bytes."""
        return self.names[(self.ends[row - 1] if row > 0 else 0) : self.ends[row]]

    def relative(self, row: int) -> str:
        """Path of a row relative to ``root``; bytes that are not UTF-8 become surrogates (PEP 383)."""
        return os.fsdecode(self.name(row))

    def path(self, row: int) -> Path:
        """Where the image of a row is."""
        return self.root / self.relative(row)

    def sha256(self, row: int) -> str:
        """Hexadecimal hash of a row's file; empty while unknown."""
        if self.hashes is None or not self.hashes[row].any():
            return ""
        return bytes(self.hashes[row]).hex()

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of ``train``, ``val``, ``test`` or ``all``, ascending."""
        if split == "all":
            return np.arange(len(self), dtype=np.int64)
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)

    def counts(self, split: str) -> npt.NDArray[np.int64]:
        """Images of each class in a split (K); an image with several labels counts for each."""
        targets: npt.NDArray[Any] = self.targets[self.rows(split)]
        if self.task == "multilabel":
            return np.asarray(targets.sum(axis=0), dtype=np.int64)
        return np.bincount(targets[targets >= 0], minlength=len(self.classes)).astype(np.int64)

    def label(self, row: int) -> str:
        """Class name; several are joined by ``|``; empty when unknown or none applies."""
        if self.task == "multilabel":
            return LABEL_SEPARATOR.join(self.classes[number] for number in np.flatnonzero(self.targets[row] > 0.5))
        return self.classes[self.targets[row]] if self.targets[row] >= 0 else ""

    def select(self, rows: npt.NDArray[np.int64]) -> Table:
        """The table of some rows, in the given order."""
        names, ends = pack(self.name(int(row)) for row in rows)
        per_row = {"targets", "split", "sizes", "modified_ns", "hashes", "groups"}
        arrays = {key: getattr(self, key) for key in per_row}
        kept: dict[str, Any] = {key: array if array is None else array[rows] for key, array in arrays.items()}
        return dataclasses.replace(self, names=names, ends=ends, **kept)

    def replace(self, **changes: Any) -> Table:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def write_csv(self, path: str | Path) -> None:
        """``path,label,split,sha256``, one row per image, in table order: what ``data.split_file=`` replays."""
        with Path(path).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("path", "label", "split", "sha256"))
            for row in range(len(self)):
                writer.writerow((self.relative(row), self.label(row), SPLITS[self.split[row]], self.sha256(row)))


def pack(names: Iterable[bytes]) -> tuple[bytes, npt.NDArray[np.int64]]:
    """Names joined to one run of bytes, and where each one ends."""
    blob = bytearray()
    lengths: list[int] = []
    for name in names:
        blob += name
        lengths.append(len(name))
    return bytes(blob), np.cumsum(np.array(lengths, dtype=np.int64), dtype=np.int64)
