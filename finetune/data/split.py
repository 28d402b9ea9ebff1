"""Which image trains and which one judges: a pure function of names, classes, groups and a seed.

Every unit (an image, a group, a set of duplicates) draws a number in [0, 1) from a hash of its name and the seed, so
the order of listing does not matter and a file keeps its number when others are added. Within a class the highest
numbers validate and the lowest test. Their count is exact to the nearest image in small classes and within a tenth in
large ones: there the number alone decides, so adding files practically never moves another. A class with two images or
more keeps one in train, and has one in val. Groups are never divided. Cost: a few microseconds an image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

TRAIN, VAL, TEST = 0, 1, 2
_TOLERANCE = 0.1


def draws(names: Iterable[bytes], seed: int) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each name."""
    key = seed.to_bytes(8, "little", signed=True)
    digests = bytearray()
    for name in names:  # bytes are collected at once: a list of a million small objects would cost 50 MB
        digests += hashlib.blake2b(name, digest_size=8, key=key).digest()
    return np.frombuffer(digests, dtype="<u8") / 2.0**64


def assign(
    draws_N: npt.NDArray[np.float64],
    targets_N: npt.NDArray[np.int64],
    units_N: npt.NDArray[np.int64] | None = None,
    *,
    val_fraction: float,
    test_fraction: float,
) -> npt.NDArray[np.int8]:
    """Split (0 train, 1 val, 2 test) of each image. ``units_N``: images with an equal number stay together."""
    split_N = np.zeros(len(draws_N), dtype=np.int8)
    units_N, draws_U = _units(draws_N, units_N)
    counts_K = np.bincount(targets_N)
    want_val_K = np.array([_wanted(int(n), val_fraction, 2) for n in counts_K])
    want_test_K = np.array([_wanted(int(n), test_fraction, 3 if val_fraction > 0 else 2) for n in counts_K])
    simple = len(draws_U) == len(draws_N)
    if simple:
        _assign_images(split_N, draws_N, targets_N, counts_K, want_val_K, want_test_K, val_fraction, test_fraction)
    else:
        left_K = counts_K.copy()
        for split, want_K, sign in ((TEST, want_test_K, 1.0), (VAL, want_val_K, -1.0)):
            _assign_units(split_N, units_N, sign * draws_U, targets_N, want_K, left_K, split)
    return split_N


def fold(
    draws_N: npt.NDArray[np.float64],
    targets_N: npt.NDArray[np.int64],
    units_N: npt.NDArray[np.int64] | None = None,
    *,
    folds: int,
) -> npt.NDArray[np.int64]:
    """Fold (0 to ``folds`` - 1) of each image: per class as equal as the units allow."""
    units_N, draws_U = _units(draws_N, units_N)
    if len(draws_U) == len(draws_N):
        return _fold_images(draws_N, targets_N, folds)
    members = _Members(units_N)
    filled_KF = np.zeros((int(targets_N.max()) + 1, folds), dtype=np.int64)
    fold_N = np.zeros(len(draws_N), dtype=np.int64)
    # large units first, so that small ones can even out what they leave
    for unit in np.lexsort((draws_U, -members.sizes)):
        rows = members.rows(unit)
        load_F = filled_KF[targets_N[rows]].sum(axis=0)
        candidates = np.flatnonzero(load_F == load_F.min())
        totals_F = filled_KF.sum(axis=0)[candidates]
        chosen = candidates[totals_F == totals_F.min()]
        number = int(chosen[int(draws_U[unit] * len(chosen))])
        fold_N[rows] = number
        np.add.at(filled_KF[:, number], targets_N[rows], 1)
    return fold_N


def join(*labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Units that respect several groupings at once: images that share a label (>= 0) in any of them share a unit."""
    count = len(labels[0])
    parent = np.arange(count)

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    for label_N in labels:
        order = np.argsort(label_N, kind="stable")
        order = order[label_N[order] >= 0]
        same = np.flatnonzero(label_N[order][1:] == label_N[order][:-1])
        for position in same:
            one, other = find(int(order[position])), find(int(order[position + 1]))
            parent[max(one, other)] = min(one, other)
    return np.array([find(row) if parent[row] != row else row for row in range(count)], dtype=np.int64)


def _wanted(count: int, fraction: float, least_count: int) -> int:
    """Nearest number of images, at least one when the class has ``least_count``, never all of them."""
    if fraction <= 0 or count < least_count:
        return 0
    return min(max(1, math.floor(count * fraction + 0.5)), count - (least_count - 1))


def _bounds(count: int, wanted: int, fraction: float) -> tuple[int, int]:
    low, high = math.ceil(count * fraction * (1 - _TOLERANCE)), math.floor(count * fraction * (1 + _TOLERANCE))
    return (min(low, wanted), max(high, wanted)) if low <= high else (wanted, wanted)


def _units(
    draws_N: npt.NDArray[np.float64], units_N: npt.NDArray[np.int64] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Units numbered from 0 and the smallest draw of each one's images."""
    if units_N is None:
        return np.arange(len(draws_N)), draws_N
    _, units_N = np.unique(units_N, return_inverse=True)
    draws_U = np.full(int(units_N.max(initial=-1)) + 1, np.inf)
    np.minimum.at(draws_U, units_N, draws_N)
    return units_N, draws_U


class _Members:
    """Rows of each unit, without an object per unit."""

    def __init__(self, units_N: npt.NDArray[np.int64]) -> None:
        self.order = np.argsort(units_N, kind="stable")
        self.sizes = np.bincount(units_N)
        self.ends = np.cumsum(self.sizes)

    def rows(self, unit: int) -> npt.NDArray[np.int64]:
        return self.order[self.ends[unit] - self.sizes[unit] : self.ends[unit]]


def _fold_images(
    draws_N: npt.NDArray[np.float64], targets_N: npt.NDArray[np.int64], folds: int
) -> npt.NDArray[np.int64]:
    """Each class in the order of its draws, cut into blocks of equal size (to one image)."""
    counts_K = np.bincount(targets_N)
    order = np.lexsort((draws_N, targets_N))
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts_K) - counts_K, counts_K)
    sizes = counts_K[targets_N[order]]
    blocks = ranks * folds // sizes
    few = sizes < folds  # classes smaller than the number of folds do not all begin at the first
    blocks[few] = (blocks[few] + targets_N[order][few]) % folds
    fold_N = np.empty(len(order), dtype=np.int64)
    fold_N[order] = blocks
    return fold_N


def _assign_images(
    split_N: npt.NDArray[np.int8],
    draws_N: npt.NDArray[np.float64],
    targets_N: npt.NDArray[np.int64],
    counts_K: npt.NDArray[np.int64],
    want_val_K: npt.NDArray[np.int64],
    want_test_K: npt.NDArray[np.int64],
    val_fraction: float,
    test_fraction: float,
) -> None:
    order = np.lexsort((draws_N, targets_N))
    ends = np.cumsum(counts_K)
    for number, count in enumerate(counts_K.tolist()):
        rows = order[ends[number] - count : ends[number]]
        drawn = draws_N[rows]
        low, high = _bounds(count, want_test_K[number], test_fraction)
        tests = min(max(int(np.searchsorted(drawn, test_fraction)), low), high, max(0, count - 1))
        low, high = _bounds(count, want_val_K[number], val_fraction)
        above = count - int(np.searchsorted(drawn, 1 - val_fraction))
        vals = min(max(above, low), high, max(0, count - 1 - tests))
        split_N[rows[:tests]] = TEST
        split_N[rows[count - vals :]] = VAL


def _assign_units(
    split_N: npt.NDArray[np.int8],
    units_N: npt.NDArray[np.int64],
    draws_U: npt.NDArray[np.float64],
    targets_N: npt.NDArray[np.int64],
    want_K: npt.NDArray[np.int64],
    left_K: npt.NDArray[np.int64],
    split: int,
) -> None:
    """Take units in the order of their draws while they bring more wanted images than unwanted ones."""
    members = _Members(units_N)
    missing_K = want_K.astype(np.int64).copy()
    for unit in np.argsort(draws_U, kind="stable"):
        if not (missing_K > 0).any():
            return
        rows = members.rows(unit)
        if split_N[rows[0]] != TRAIN:
            continue
        classes, sizes = np.unique(targets_N[rows], return_counts=True)
        gain = int(np.minimum(sizes, np.maximum(missing_K[classes], 0)).sum())
        if gain * 2 > len(rows) and (left_K[classes] - sizes >= 1).all():
            split_N[rows] = split
            missing_K[classes] -= sizes
            left_K[classes] -= sizes
