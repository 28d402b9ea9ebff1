"""Fills in the splits of a table: what belongs together is found, then ``split.py`` decides.

Explicit folders (or a CSV's split column) stay as they are; only what they leave open is cut from train. Exact
duplicates and the images of one group (``data.split_by``) share a unit and are never divided.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.data import split as splitting
from finetune.data.exact import same_content
from finetune.data.options import SplitOptions
from finetune.data.replay import replay
from finetune.data.table import Table
from finetune.errors import DataError


def partition(table: Table, options: SplitOptions) -> Table:
    """The table with a split for every row. Raises ``DataError`` when the options cannot be met."""
    if options.split_file is not None:
        return replay(table, Path(options.split_file).expanduser(), options.split_file)
    if table.groups is None:
        table = table.replace(groups=groups(table, options.split_by))
    present = {int(code) for code in np.unique(table.split)}
    open_rows = np.flatnonzero(table.split <= splitting.TRAIN)
    if options.fold is not None and splitting.VAL in present:
        raise DataError("data.fold needs images without a val/ folder: it says itself which ones validate")
    val_fraction = 0.0 if splitting.VAL in present else options.val_fraction
    test_fraction = 0.0 if splitting.TEST in present else options.test_fraction
    split_N = np.maximum(table.split, 0).astype(np.int8)
    if len(open_rows) and (val_fraction or test_fraction or options.fold is not None):
        part = table if len(open_rows) == len(table) else table.select(open_rows)
        split_N[open_rows] = _divide(part, options, val_fraction, test_fraction)
    return table.replace(split=split_N)


def groups(table: Table, split_by: str | None) -> npt.NDArray[np.int64] | None:
    """Group number of each row by ``data.split_by``; None for ``image``."""
    if split_by in (None, "image"):
        return None
    assert split_by is not None
    if split_by == "folder":
        keys = [table.name(row).rpartition(b"/")[0] for row in range(len(table))]
    elif split_by.startswith("regex:"):
        keys = _matches(table, split_by)
    else:
        raise DataError(f"data.split_by={split_by} needs a CSV file with that column (data=csv)")
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _matches(table: Table, split_by: str) -> list[bytes]:
    pattern = re.compile(split_by.removeprefix("regex:"))
    keys, unmatched = [], []
    for row in range(len(table)):
        name = table.relative(row).rpartition("/")[2]
        found = pattern.search(name)
        if found is None:
            unmatched.append(name)
            continue
        keys.append((found.group(1) if pattern.groups else found.group()) or "")
    if unmatched:
        raise DataError(
            f"data.split_by={split_by} matches nothing in {len(unmatched)} of {len(table)} file names (first:"
            f" {unmatched[0]!r}); every name must match, the first parenthesis is the group"
        )
    return [key.encode("utf-8", "surrogateescape") for key in keys]


def _divide(table: Table, options: SplitOptions, val_fraction: float, test_fraction: float) -> npt.NDArray[np.int8]:
    draws_N = splitting.draws((table.name(row) for row in range(len(table))), options.seed)
    labels = [label for label in (table.groups, same_content(table)) if label is not None]
    units_N = splitting.join(*labels) if labels else None
    targets_N = table.targets if table.task == "multiclass" else _rarest_label(table)
    if options.fold is None or options.folds is None:
        split_N = splitting.assign(draws_N, targets_N, units_N, val_fraction=val_fraction, test_fraction=test_fraction)
    else:
        split_N = splitting.assign(draws_N, targets_N, units_N, val_fraction=0.0, test_fraction=test_fraction)
        rest = np.flatnonzero(split_N == splitting.TRAIN)
        fold_R = splitting.fold(
            draws_N[rest], targets_N[rest], None if units_N is None else units_N[rest], folds=options.folds
        )
        split_N[rest[fold_R == options.fold]] = splitting.VAL
    wants_val = val_fraction > 0 or options.fold is not None
    if table.groups is not None and wants_val and not (split_N == splitting.VAL).any():
        raise DataError(
            f"data.split_by={options.split_by} leaves nothing to validate with: {len(table)} images are in"
            f" {len(np.unique(table.groups))} group(s) that cannot be divided; choose a finer rule or add a val/ folder"
        )
    return split_N


def _rarest_label(table: Table) -> npt.NDArray[np.int64]:
    """Stratify multi-label images by the rarest label each one has (none: a class of its own)."""
    counts_K = table.targets.sum(axis=0)
    order_K = np.argsort(counts_K, kind="stable")
    ranked = table.targets[:, order_K] > 0.5
    return np.where(ranked.any(axis=1), order_K[ranked.argmax(axis=1)], len(table.classes)).astype(np.int64)
