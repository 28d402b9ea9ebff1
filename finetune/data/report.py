"""What was found in a data set, as plain data: for the terminal, ``data_report.json`` and the HTML page.

``problems`` are what training refuses; ``warnings`` what a person should look at; ``unreadable`` names every file that
will not be used, with the reason. Long lists are cut in the JSON file at ``MAX_LISTED``, with their full length beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.data.table import SPLITS, Table

MAX_LISTED = 1000


@dataclass(frozen=True)
class Pair:
    """Two rows that show the same: byte for byte (``exact``) or to the eye."""

    row: int
    other: int
    exact: bool
    across: bool
    """In different splits."""
    relabelled: bool
    """With different labels."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Any number of pairs as arrays (frames of a video are all alike): rows P 2, and what holds for each."""

    rows: npt.NDArray[np.int64]
    exact: npt.NDArray[np.bool_]
    across: npt.NDArray[np.bool_]
    relabelled: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.first(len(self)))

    def first(self, count: int) -> list[Pair]:
        """The first ``count`` pairs: across splits before within, exact before near."""
        kinds = (self.exact, self.across, self.relabelled)
        columns = (kind[:count].tolist() for kind in kinds)
        return [Pair(row, other, *is_) for (row, other), *is_ in zip(self.rows[:count].tolist(), *columns, strict=True)]

    def count(self, *, exact: bool, across: bool) -> int:
        """Pairs of one kind."""
        return int(((self.exact == exact) & (self.across == across)).sum())


@dataclass(frozen=True)
class DataReport:
    """The findings on ``table``, which still has every file; ``clean`` leaves out the unreadable ones."""

    table: Table
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    unreadable: dict[int, str]
    """Row to reason."""
    suspect: dict[int, str]
    """Row to damage; these files are used."""
    notes: dict[str, int]
    """How values were scaled or composited, and in how many files."""
    pairs: Pairs
    formats: dict[str, int]
    modes: dict[str, int]
    orientations: dict[str, int]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    seconds: float
    cached: int
    """Files whose verdict was known already."""

    def clean(self) -> Table:
        """The table to train on: unreadable files left out, hashes filled in."""
        if not self.unreadable:
            return self.table
        keep = np.ones(len(self.table), dtype=np.bool_)
        keep[list(self.unreadable)] = False
        return self.table.select(np.flatnonzero(keep))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, texts and numbers; names that are not UTF-8 are escaped."""
        table = self.table
        pairs = self.pairs
        sides = np.stack([self.heights, self.widths])[:, self.heights > 0]
        return {
            "path": printable(str(table.root)),
            "layout": table.source.layout,
            "task": table.task,
            "classes": [printable(name) for name in table.classes],
            "images": len(table),
            "splits": {split: self.per_class(split) for split in SPLITS},
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "ignored": table.source.ignored,
            "unreadable": self._listed(self.unreadable),
            "num_unreadable": len(self.unreadable),
            "suspect": self._listed(self.suspect),
            "num_suspect": len(self.suspect),
            "duplicates": {
                "exact": int(pairs.exact.sum()),
                "near": int((~pairs.exact).sum()),
                "exact_across_splits": pairs.count(exact=True, across=True),
                "near_across_splits": pairs.count(exact=False, across=True),
                "with_different_labels": int(pairs.relabelled.sum()),
                "pairs": [self._pair(pair) for pair in pairs.first(MAX_LISTED)],
            },
            "formats": self.formats,
            "modes": self.modes,
            "orientations": self.orientations,
            "converted": self.notes,
            "size": {name: summary(side) for name, side in zip(("height", "width"), sides, strict=True)},
            "seconds": round(self.seconds, 3),
            "cached": self.cached,
        }

    def lines(self) -> list[str]:
        """For the terminal: what is there, then what is wrong, the worst first."""
        counts = {split: int((self.clean().split == number).sum()) for number, split in enumerate(SPLITS)}
        images = ", ".join(f"{count:,} {split}" for split, count in counts.items() if count)
        classes = [printable(name) for name in self.table.classes]
        more = f", ... {len(classes) - 10} more" if len(classes) > 10 else ""
        known = f" ({self.cached:,} verdicts remembered)" if self.cached else ""
        return [
            f"data      {printable(str(self.table.root))}: {self.table.source.layout}",
            f"images    {images}",
            f"classes   {len(classes)}: {', '.join(classes[:10])}{more}",
            f"examined  {len(self.table):,} files in {self.seconds:.1f} s{known}",
            *(f"warning   {text}" for text in self.warnings),
        ]

    def per_class(self, split: str) -> dict[str, int]:
        """Usable images of each class in a split."""
        counts = self.clean().counts(split)
        return {printable(name): int(count) for name, count in zip(self.table.classes, counts, strict=True)}

    def _listed(self, texts: dict[int, str]) -> list[dict[str, str]]:
        shown = list(texts.items())[:MAX_LISTED]
        return [{"path": printable(self.table.relative(row)), "reason": printable(text)} for row, text in shown]

    def _pair(self, pair: Pair) -> dict[str, Any]:
        return {
            "path": printable(self.table.relative(pair.row)),
            "other": printable(self.table.relative(pair.other)),
            "kind": "exact" if pair.exact else "near",
            "splits": [SPLITS[self.table.split[row]] for row in (pair.row, pair.other)],
            "labels": [printable(self.table.label(row)) for row in (pair.row, pair.other)],
        }


def printable(text: str) -> str:
    """The text with bytes that are no UTF-8 written as escapes, for files and screens that must be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def summary(values: npt.NDArray[np.int32]) -> dict[str, float]:
    """Smallest, median and largest, in pixels."""
    if not len(values):
        return {}
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}
