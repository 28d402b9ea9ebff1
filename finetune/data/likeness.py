"""Exact and near duplicates among examined images, within the splits and across them.

Copies (equal SHA-256) are paired with the first of their kind; then one image of each kind and split is compared with
the others by ``near``. Across splits, every val and test image is held against all of train, and test against val: a
leak is found however many look-alikes an image has in its own split.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.data.near import Likeness, pairs_between, pairs_within
from finetune.data.report import Pair
from finetune.data.table import Table


def duplicates(table: Table, records: npt.NDArray[np.void], workers: int) -> list[Pair]:
    """Pairs of rows; those across splits first, exact before near."""
    kinds_N = _kinds(records)
    found = dict.fromkeys(_exact(table, records, kinds_N), True)
    for pair in _near(table, records, kinds_N, workers):
        found.setdefault(pair, False)
    pairs = [_pair(table, row, other, exact=exact) for (row, other), exact in found.items()]
    return sorted(pairs, key=lambda pair: (not pair.across, not pair.exact, pair.row, pair.other))


def _kinds(records: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """A number per distinct content."""
    digests = np.ascontiguousarray(records["sha256"]).view("V32").ravel()
    return np.unique(digests, return_inverse=True)[1].astype(np.int64)


def _exact(table: Table, records: npt.NDArray[np.void], kinds_N: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    order = np.lexsort((np.arange(len(kinds_N)), table.split, kinds_N))
    order = order[records["readable"][order]]
    pairs, first, last = [], -1, -1
    for row, kind in zip(order.tolist(), kinds_N[order].tolist(), strict=True):
        if kind != last:
            first, last = row, kind
        else:
            pairs.append((min(first, row), max(first, row)))
    return pairs


def _near(
    table: Table, records: npt.NDArray[np.void], kinds_N: npt.NDArray[np.int64], workers: int
) -> list[tuple[int, int]]:
    comparable = np.flatnonzero(records["comparable"])
    key = kinds_N[comparable] * 8 + table.split[comparable]
    rows = comparable[np.sort(np.unique(key, return_index=True)[1])]
    likeness = Likeness(records["coarse"][rows], records["fine"][rows])
    split = table.split[rows]
    found: list[npt.NDArray[np.int64]] = []
    for code in np.unique(split):
        own = np.flatnonzero(split == code)
        found.append(rows[own[pairs_within(likeness.rows(own), workers)]])
        earlier = np.flatnonzero(split < code)
        between = pairs_between(likeness.rows(own), likeness.rows(earlier), workers)
        found.append(np.stack([rows[earlier[between[:, 1]]], rows[own[between[:, 0]]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1) if found else np.zeros((0, 2), dtype=np.int64)
    pairs = np.unique(pairs[kinds_N[pairs[:, 0]] != kinds_N[pairs[:, 1]]], axis=0)
    return [(row, other) for row, other in pairs.tolist()]


def _pair(table: Table, row: int, other: int, *, exact: bool) -> Pair:
    return Pair(
        row,
        other,
        exact,
        across=bool(table.split[row] != table.split[other]),
        relabelled=not np.array_equal(table.targets[row], table.targets[other]),
    )
