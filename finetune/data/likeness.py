"""Exact and near duplicates among examined images, within the splits and across them.

Copies (equal SHA-256) are paired with the first of their kind; then one image of each kind and split is compared with
the others by ``near``. Across splits, every val and test image is held against all of train, and test against val: a
leak is found however many look-alikes an image has in its own split.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.data.near import Likeness, pairs_between, pairs_within
from finetune.data.report import Pairs
from finetune.data.table import Table

Rows = npt.NDArray[np.int64]


def duplicates(table: Table, records: npt.NDArray[np.void], workers: int) -> Pairs:
    """Pairs of rows; those across splits first, exact before near."""
    kinds_N = _kinds(records)
    exact, near = _exact(table, records, kinds_N), _near(table, records, kinds_N, workers)
    rows = np.concatenate([exact, near])
    is_near = np.arange(len(rows)) >= len(exact)
    ours, others = rows[:, 0], rows[:, 1]
    differs = table.targets[ours] != table.targets[others]
    relabelled = differs.any(axis=1) if differs.ndim == 2 else differs
    across = table.split[ours] != table.split[others]
    order = np.lexsort((others, ours, is_near, ~across))
    return Pairs(rows[order], ~is_near[order], across[order], relabelled[order])


def _kinds(records: npt.NDArray[np.void]) -> Rows:
    """A number per distinct content."""
    digests = np.ascontiguousarray(records["sha256"]).view("V32").ravel()
    return np.unique(digests, return_inverse=True)[1].astype(np.int64)


def _exact(table: Table, records: npt.NDArray[np.void], kinds_N: Rows) -> Rows:
    """Each copy with the first of its kind (P 2)."""
    order = np.lexsort((np.arange(len(kinds_N)), table.split, kinds_N))
    order = order[records["readable"][order]]
    kinds = kinds_N[order]
    _, first, place = np.unique(kinds, return_index=True, return_inverse=True)
    pairs = np.sort(np.stack([order[first[place]], order], axis=1), axis=1)
    copies: Rows = pairs[pairs[:, 0] != pairs[:, 1]].astype(np.int64)
    return copies


def _near(table: Table, records: npt.NDArray[np.void], kinds_N: Rows, workers: int) -> Rows:
    comparable = np.flatnonzero(records["comparable"])
    key = kinds_N[comparable] * 8 + table.split[comparable]
    rows = comparable[np.sort(np.unique(key, return_index=True)[1])]
    likeness = Likeness(records["coarse"][rows], records["fine"][rows])
    split = table.split[rows]
    found = [np.zeros((0, 2), dtype=np.int64)]
    for code in np.unique(split):
        own = np.flatnonzero(split == code)
        found.append(rows[own[pairs_within(likeness.rows(own), workers)]])
        earlier = np.flatnonzero(split < code)
        between = pairs_between(likeness.rows(own), likeness.rows(earlier), workers)
        found.append(np.stack([rows[earlier[between[:, 1]]], rows[own[between[:, 0]]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs[kinds_N[pairs[:, 0]] != kinds_N[pairs[:, 1]]], axis=0).astype(np.int64)
