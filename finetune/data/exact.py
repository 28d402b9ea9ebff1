"""Files with the same bytes, found without reading most of them: only files of equal size are compared.

Needed before splitting, so that copies of one image stay on one side. The examination of a data set (``check``) finds
near duplicates too; this is the part that every load can afford. Cost: nothing where sizes differ; else a hash of 4 KiB
of the middle of a file, and of the whole only where those agree.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from finetune.data.image import read_bytes
from finetune.data.table import Table
from finetune.errors import ImageError

_SAMPLE = 4096


def same_content(table: Table) -> npt.NDArray[np.int64] | None:
    """A number shared by rows with equal bytes, -1 for the others; None without any. Empty files are not alike."""
    _, inverse, counts = np.unique(table.sizes, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((counts[inverse] > 1) & (table.sizes > 0))
    rows = _repeated(rows, [(int(table.sizes[row]), _sample(table, int(row))) for row in rows])
    keys = [_whole(table, int(row)) for row in rows]
    kept = _repeated(rows, keys)
    if not len(kept):
        return None
    key_of = dict(zip(rows.tolist(), keys, strict=True))
    numbers: dict[object, int] = {}
    label_N = np.full(len(table), -1, dtype=np.int64)
    for row in kept.tolist():
        label_N[row] = numbers.setdefault(key_of[row], len(numbers))
    return label_N


def _repeated(rows: npt.NDArray[np.int64], keys: list[object] | list[tuple[int, bytes]]) -> npt.NDArray[np.int64]:
    seen: dict[object, int] = {}
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
    return np.array([row for row, key in zip(rows.tolist(), keys, strict=True) if seen[key] > 1], dtype=np.int64)


def _sample(table: Table, row: int) -> bytes:
    try:
        with table.path(row).open("rb") as file:
            file.seek(max(0, int(table.sizes[row]) // 2 - _SAMPLE // 2))
            return hashlib.blake2b(file.read(_SAMPLE), digest_size=16).digest()
    except OSError:
        return row.to_bytes(8, "little")


def _whole(table: Table, row: int) -> object:
    try:
        return hashlib.sha256(read_bytes(table.path(row))).digest()
    except ImageError:
        return row
