"""From a listing of folders to a table: class numbers from folder names, and the class contract between the splits.

The class list is train's (or a trained model's), sorted; it holds for val and test. Kept apart from folder.py because
it needs NumPy, and the quick check of a folder does not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from finetune.data.folder import Layout, extra_classes
from finetune.data.listing import Listing
from finetune.data.table import SPLITS, Source, Table
from finetune.errors import DataError, combine


def labelled(
    path: str,
    root: Path,
    layout: Layout,
    listing: Listing,
    *,
    class_from: Literal["top", "leaf"],
    classes: Sequence[str] | None,
) -> Table:
    """Table of all listed images. Split is -1 where there are no split folders. Raises ``DataError``."""
    depth = {split: (folder.count(b"/") + 1 if folder else 0) for split, (folder, _) in layout.splits.items()}
    split_of = {folder: split for split, (folder, _) in layout.splits.items()}
    runs: list[tuple[str, str, int]] = []  # split, class, images
    nested = 0
    for folder, count in listing.folders:
        split = "all" if "all" in layout.splits else split_of[folder.split(b"/")[0]]
        parts = folder.split(b"/")
        nested += len(parts) > depth[split] + 1
        runs.append((split, os.fsdecode(parts[depth[split]] if class_from == "top" else parts[-1]), count))
    known = tuple(classes) if classes is not None else _train_classes(path, layout, runs)
    problems, warnings = _contract(path, layout, runs, known)
    if problems:
        raise combine([DataError(text) for text in problems])
    number = {name: index for index, name in enumerate(known)}
    lengths = np.array([count for *_, count in runs], dtype=np.int64)
    targets = np.repeat(np.array([number[name] for _, name, _ in runs], dtype=np.int64), lengths)
    codes = np.array([-1 if split == "all" else SPLITS.index(split) for split, _, _ in runs], dtype=np.int8)
    if nested:
        rule = "the top folder is the class" if class_from == "top" else "the folder that holds the image is the class"
        warnings.append(f"{nested} folder(s) lie deeper than one level: {rule} (data.class_from={class_from})")
    if layout.beside:
        warnings.append(f"folders beside the splits are not used: {', '.join(map(os.fsdecode, layout.beside))}")
    return Table(
        root=root,
        classes=known,
        names=bytes(listing.names),
        ends=np.cumsum(np.array(listing.lengths, dtype=np.int64), dtype=np.int64),
        targets=targets,
        split=np.repeat(codes, lengths),
        sizes=np.array(listing.sizes, dtype=np.int64),
        modified_ns=np.array(listing.modified_ns, dtype=np.int64),
        source=Source(layout.words, dict(sorted(listing.ignored.items())), tuple(warnings)),
    )


def _train_classes(path: str, layout: Layout, runs: list[tuple[str, str, int]]) -> tuple[str, ...]:
    first = next(iter(layout.splits))
    names = tuple(sorted({name for split, name, _ in runs if split == first}))
    if len(names) < 2:
        quoted = ", ".join(map(repr, names)) or "none"
        got = f"images of {len(names)} class(es) ({quoted})"
        raise DataError(f"data.path={path} has {got}; a classifier needs at least 2")
    return names


def _contract(
    path: str, layout: Layout, runs: list[tuple[str, str, int]], known: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """Errors (a class that the list does not have) and warnings (a class that a split lacks)."""
    problems, warnings = [], []
    for split, (folder, _) in layout.splits.items():
        names = {name for where, name, _ in runs if where == split}
        extra = sorted(names - set(known))
        missing = [name for name in known if name not in names]
        if extra:
            problems.append(extra_classes(path, os.fsdecode(folder) or "it", extra, known))
        if missing and names:
            warnings.append(f"{os.fsdecode(folder) or 'the folder'} has no images of {', '.join(map(repr, missing))}")
    return problems, warnings
