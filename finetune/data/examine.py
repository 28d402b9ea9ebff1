"""The examination of a data set before it is used: every file read once, on all cores, and what was found on record.

``check`` shows it; ``train`` runs it first and goes on with ``report.clean()``. Verdicts are remembered by path, size
and time, so the second examination only looks for what changed. Cost: about the decoding of each file once, per core.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from finetune.data.examiners import cores, examine_files
from finetune.data.likeness import duplicates
from finetune.data.report import DataReport, Pairs, printable
from finetune.data.table import Table
from finetune.data.verdict import Verdicts
from finetune.data.verdict_cache import VerdictCache

_IMBALANCE = 10
_TINY_PX = 32


def examine(
    table: Table, *, workers: int | None = None, progress: bool = True, cache_dir: Path | None = None
) -> DataReport:
    """Read every file of ``table`` that has no remembered verdict. ``workers``: processes, default one per core."""
    started = time.perf_counter()
    workers = workers or cores()
    verdicts = Verdicts.empty(len(table))
    cache = VerdictCache(table.root, cache_dir)
    known_N = cache.load(table, verdicts)
    unknown = np.flatnonzero(~known_N)
    if len(unknown):
        _examine_rows(table, unknown, verdicts, workers, progress=progress)
        cache.save(table, verdicts)
    return _report(table, verdicts, workers, started, int(known_N.sum()))


def _examine_rows(
    table: Table, rows: npt.NDArray[np.int64], verdicts: Verdicts, workers: int, *, progress: bool
) -> None:
    root = os.fspath(table.root)
    with tqdm(total=len(rows), desc="examining", unit=" files", disable=not progress, leave=False) as bar:

        def put(row: int, record: npt.NDArray[np.void], texts: list[str]) -> None:
            verdicts.put(row, record, texts)
            bar.update()

        examine_files(
            [int(row) for row in rows],
            lambda row: f"{root}{os.sep}{table.relative(row)}",
            int(table.sizes[rows].sum()),
            workers,
            put,
        )


def _report(table: Table, verdicts: Verdicts, workers: int, started: float, cached: int) -> DataReport:
    records = verdicts.records
    readable_N = records["readable"]
    unreadable = {int(row): verdicts.text(int(row), "reason") for row in np.flatnonzero(~readable_N)}
    suspect = {int(row): verdicts.text(int(row), "damage") for row in np.flatnonzero(records["damage"])}
    problems = _changed(table, records)
    examined = table.replace(hashes=records["sha256"].copy())
    pairs = duplicates(examined, records, workers)
    contract, warnings = _class_findings(examined, readable_N)
    warnings = [*table.source.warnings, *warnings, *_file_findings(examined, unreadable, suspect, records)]
    warnings += _pair_findings(pairs)
    return DataReport(
        table=examined,
        problems=(*problems, *contract),
        warnings=tuple(warnings),
        unreadable=unreadable,
        suspect=suspect,
        notes=_texts(verdicts, "note"),
        pairs=pairs,
        formats=_texts(verdicts, "format"),
        modes=_texts(verdicts, "mode"),
        orientations={
            str(value): int(n)
            for value, n in zip(*np.unique(records["orientation"][readable_N], return_counts=True), strict=True)
        },
        heights=records["height"],
        widths=records["width"],
        seconds=time.perf_counter() - started,
        cached=cached,
    )


def _changed(table: Table, records: npt.NDArray[np.void]) -> list[str]:
    """Files that are not what the split file's hashes say."""
    if table.hashes is None:
        return []
    differs_N = table.hashes.any(axis=1) & (table.hashes != records["sha256"]).any(axis=1)
    rows = np.flatnonzero(differs_N & records["sha256"].any(axis=1))
    if not len(rows):
        return []
    return [f"{len(rows)} file(s) changed since data.split_file was written: {_names(table, rows)}"]


def _class_findings(table: Table, readable_N: npt.NDArray[np.bool_]) -> tuple[list[str], list[str]]:
    """What training refuses about the classes, and what is worth knowing."""
    problems, warnings = [], []
    usable = table.select(np.flatnonzero(readable_N))
    train = usable.counts("train")
    empty = [name for name, count in zip(table.classes, train, strict=True) if count == 0]
    if len(usable.rows("train")) and empty:
        shown = ", ".join(repr(printable(name)) for name in empty[:8])
        problems.append(f"{len(empty)} class(es) have no readable image to train on: {shown}")
    small = [
        f"{printable(name)!r} ({count})" for name, count in zip(table.classes, train, strict=True) if 0 < count < 2
    ]
    if small:
        warnings.append(f"classes with a single image to train on: {', '.join(small[:8])}")
    if (train > 0).all() and len(train) and train.max() >= _IMBALANCE * train.min():
        most, least = (printable(table.classes[int(pick)]) for pick in (train.argmax(), train.argmin()))
        warnings.append(
            f"imbalanced: {most!r} has {train.max()} training images, {least!r} {train.min()} (data.sampler=balanced,"
            " monitor=val/balanced_accuracy)"
        )
    for split in ("val", "test"):
        if not len(table.rows(split)):
            continue
        if not len(usable.rows(split)):
            problems.append(f"no image of {split} can be read")
            continue
        missing = [
            printable(name) for name, count in zip(table.classes, usable.counts(split), strict=True) if count == 0
        ]
        if missing:
            warnings.append(f"{split} has no image of {', '.join(map(repr, missing[:8]))}; it says nothing about them")
    return problems, warnings


def _file_findings(
    table: Table, unreadable: dict[int, str], suspect: dict[int, str], records: npt.NDArray[np.void]
) -> list[str]:
    warnings = []
    if unreadable:
        reasons = Counter(unreadable.values()).most_common(3)
        words = "; ".join(f"{count} x {printable(reason)}" for reason, count in reasons)
        warnings.append(
            f"{len(unreadable)} file(s) cannot be read and are not used ({words}): {_names(table, unreadable)}"
        )
    if suspect:
        warnings.append(f"{len(suspect)} file(s) are damaged but used: {_names(table, suspect)}")
    short_N = np.minimum(records["height"], records["width"])
    tiny = np.flatnonzero(records["readable"] & (short_N < _TINY_PX))
    if len(tiny):
        warnings.append(f"{len(tiny)} image(s) are smaller than {_TINY_PX} pixels: {_names(table, tiny)}")
    return warnings


def _pair_findings(pairs: Pairs) -> list[str]:
    warnings = []
    for exact, word in ((True, "exact"), (False, "near")):
        leaks = pairs.count(exact=exact, across=True)
        within = pairs.count(exact=exact, across=False)
        if leaks:
            warnings.append(f"{leaks} {word} duplicate(s) stand in two splits: figures on val or test are too good")
        if within:
            warnings.append(f"{within} {word} duplicate pair(s) within a split")
    relabelled = int((pairs.relabelled & pairs.exact).sum())
    if relabelled:
        warnings.append(f"{relabelled} pair(s) of identical files have different labels")
    return warnings


def _texts(verdicts: Verdicts, name: str) -> dict[str, int]:
    numbers = verdicts.records[name]
    values, counts = np.unique(numbers[numbers > 0], return_counts=True)
    return {verdicts.texts[value]: int(count) for value, count in zip(values, counts, strict=True)}


def _names(table: Table, rows: npt.NDArray[np.int64] | dict[int, str], limit: int = 3) -> str:
    shown = ", ".join(printable(table.relative(int(row))) for row in list(rows)[:limit])
    return shown if len(rows) <= limit else f"{shown}, ..."
