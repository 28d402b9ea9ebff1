"""Labels from a CSV file beside the images (``data=csv data.file=labels.csv data.path=DIR``), one or several per image.

Columns ``path`` (relative to data.path) and ``label``; optional ``split`` (train, val or test) and ``group`` (never
divided between splits). With ``data.multilabel=true`` a cell holds any number of labels, none too: ``cat|outdoor``.
The class list is train's, sorted. Every wrong row is named by its line; no path may leave data.path, by ``..`` or by a
link. Cost: about 15 microseconds a row.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.data.folder import SPLIT_OF, extra_classes, root_problem
from finetune.data.options import LoaderOptions, SplitOptions
from finetune.data.partition import partition
from finetune.data.table import LABEL_SEPARATOR, SPLITS, Source, Table, pack
from finetune.errors import DataError, combine

_MAX_NAMED = 20


class _Row(NamedTuple):
    line: int
    name: str
    label: str
    split: str
    group: str
    size: int
    modified_ns: int


class CsvData:
    """Keys of ``conf/data/csv.yaml``; ``load`` reads, checks and splits."""

    def __init__(
        self,
        seed: int,
        *,
        path: str,
        file: str,
        path_column: str = "path",
        label_column: str = "label",
        delimiter: str = ",",
        multilabel: bool = False,
        label_separator: str = "|",
        image_size: int = 224,
        batch_size: int | Literal["auto"] = 32,
        num_workers: int | None = None,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        cache: Literal["none", "ram", "disk"] = "none",
        cache_gb: float = 4.0,
        max_bad_fraction: float = 0.01,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        split_by: str | None = None,
        split_file: str | None = None,
        fold: int | None = None,
        folds: int | None = None,
    ) -> None:
        self.path = path
        self.file = file
        self.path_column = path_column
        self.label_column = label_column
        self.delimiter = delimiter
        self.multilabel = multilabel
        self.label_separator = label_separator
        self.options = LoaderOptions(image_size, batch_size, num_workers, sampler, cache, cache_gb, max_bad_fraction)
        self.split = SplitOptions(seed, val_fraction, test_fraction, split_by, split_file, fold, folds)
        wrong = self.options.problems() + self.split.problems()
        if wrong:
            raise combine(wrong)

    def load(self, classes: Sequence[str] | None = None) -> Table:
        """As ``FolderData.load``. Raises ``DataError`` with up to 20 wrong rows."""
        root = Path(self.path).expanduser()
        unusable = root_problem(self.path, root)
        if unusable:
            raise DataError(unusable)
        columns, records = self._read()
        group_column = self._group_column(columns)
        rows, problems = self._checked(root, columns, records, group_column)
        if problems:
            more = (
                [f"data.file={self.file}: and {len(problems) - _MAX_NAMED} more"] if len(problems) > _MAX_NAMED else []
            )
            raise combine([DataError(text) for text in problems[:_MAX_NAMED] + more])
        return partition(self._table(root, rows, group_column, classes), self.split)

    def _read(self) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
        file = Path(self.file).expanduser()
        try:
            text = file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise DataError(f"data.file={self.file} cannot be read ({error.strerror})") from error
        if "\0" in text[:4096]:
            raise DataError(f"data.file={self.file} is no CSV file in UTF-8 (it has NUL bytes)")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
        try:
            lines = [(reader.line_num, record) for record in reader if record]
        except csv.Error as error:
            raise DataError(f"data.file={self.file} line {reader.line_num}: no CSV ({error})") from error
        columns = [name.strip() for name in lines[0][1]] if lines else []
        missing = [name for name in (self.path_column, self.label_column) if name not in columns]
        if missing:
            got = ", ".join(map(repr, columns)) or "nothing"
            raise DataError(
                f"data.file={self.file} has no column {' and '.join(map(repr, missing))}; its first line has {got}"
                " (data.path_column, data.label_column and data.delimiter name others)"
            )
        return columns, iter(lines[1:])

    def _group_column(self, columns: list[str]) -> str:
        """The column whose values are never divided; empty for none."""
        split_by = self.split.split_by
        if split_by is None:
            return "group" if "group" in columns else ""
        if not split_by.startswith("column:"):
            return ""
        name = split_by.removeprefix("column:")
        if name not in columns:
            raise DataError(
                f"data.split_by={split_by}: data.file={self.file} has columns {', '.join(map(repr, columns))}"
            )
        return name

    def _checked(
        self, root: Path, columns: list[str], records: Iterator[tuple[int, list[str]]], group_column: str
    ) -> tuple[list[_Row], list[str]]:
        rows, problems = list[_Row](), list[str]()
        lines: dict[str, int] = {}
        inside = _Inside(root)
        for line, record in records:
            try:
                if len(record) != len(columns):
                    raise DataError(f"has {len(record)} values, the first line {len(columns)}")
                cells = {name: value.strip() for name, value in zip(columns, record, strict=True)}
                row = self._row(line, cells, group_column, inside)
                if row.name in lines:
                    raise DataError(f"{row.name!r} stands in line {lines[row.name]} already")
                lines[row.name] = line
                rows.append(row)
            except DataError as error:
                problems.append(f"data.file={self.file} line {line}: {error}")
        if not rows and not problems:
            problems.append(f"data.file={self.file} has no rows below its first line")
        splits = {bool(row.split) for row in rows}
        if len(splits) == 2:
            empty = next(row.line for row in rows if not row.split)
            problems.append(f"data.file={self.file} line {empty}: no split, which other rows have; fill in all or none")
        return rows, problems

    def _row(self, line: int, cells: dict[str, str], group_column: str, inside: _Inside) -> _Row:
        label, split = cells[self.label_column], cells.get("split", "").casefold()
        if not label and not self.multilabel:
            raise DataError("no label")
        if split and split not in SPLIT_OF:
            raise DataError(f"split {cells['split']!r}; expected train, val or test")
        if group_column and not cells[group_column]:
            raise DataError(f"no value in column {group_column!r}, by which the images are grouped")
        name, status = inside.find(cells[self.path_column])
        return _Row(
            line, name, label, SPLIT_OF.get(split, ""), cells.get(group_column, ""), status.st_size, status.st_mtime_ns
        )

    def _labels(self, row: _Row) -> list[str]:
        if not self.multilabel:
            return [row.label]
        return [label.strip() for label in row.label.split(self.label_separator) if label.strip()]

    def _table(self, root: Path, rows: list[_Row], group_column: str, classes: Sequence[str] | None) -> Table:
        rows = sorted(rows, key=lambda row: os.fsencode(row.name))
        labels = [self._labels(row) for row in rows]
        known = tuple(classes) if classes is not None else self._classes(rows, labels)
        problems, warnings = self._contract(rows, labels, known)
        if problems:
            raise combine([DataError(text) for text in problems])
        if group_column:
            warnings.append(f"images that share a value of column {group_column!r} are kept in one split")
        names, ends = pack(os.fsencode(row.name) for row in rows)
        group_numbers: dict[str, int] = {}
        groups = [group_numbers.setdefault(row.group, len(group_numbers)) for row in rows] if group_column else None
        return Table(
            root=root,
            classes=known,
            names=names,
            ends=ends,
            targets=_targets(labels, known, multilabel=self.multilabel),
            split=np.array([SPLITS.index(row.split) if row.split else -1 for row in rows], dtype=np.int8),
            sizes=np.array([row.size for row in rows], dtype=np.int64),
            modified_ns=np.array([row.modified_ns for row in rows], dtype=np.int64),
            task="multilabel" if self.multilabel else "multiclass",
            groups=None if groups is None else np.array(groups, dtype=np.int64),
            source=Source(f"CSV file {self.file}" + (" with splits" if rows[0].split else ""), {}, tuple(warnings)),
        )

    def _classes(self, rows: list[_Row], labels: list[list[str]]) -> tuple[str, ...]:
        train = {name for row, own in zip(rows, labels, strict=True) if row.split in ("", "train") for name in own}
        least = 1 if self.multilabel else 2
        if len(train) < least:
            got = f"{len(train)} class(es) in its training rows ({', '.join(map(repr, sorted(train))) or 'none'})"
            raise DataError(f"data.file={self.file} has {got}; a classifier needs at least {least}")
        wrong = sorted(name for name in train if self.multilabel and LABEL_SEPARATOR in name)
        if wrong:
            raise DataError(f"data.file={self.file}: label {wrong[0]!r} holds '|', which separates labels in split.csv")
        return tuple(sorted(train))

    def _contract(
        self, rows: list[_Row], labels: list[list[str]], known: tuple[str, ...]
    ) -> tuple[list[str], list[str]]:
        seen: dict[str, set[str]] = {}
        for row, own in zip(rows, labels, strict=True):
            seen.setdefault(row.split, set()).update(own)
        problems, warnings = [], []
        for split, names in seen.items():
            where = f"split {split}" if split else "it"
            if names - set(known):
                problems.append(extra_classes(self.file, where, sorted(names - set(known)), known, key="data.file"))
            missing = [name for name in known if name not in names]
            if missing:
                warnings.append(f"{where} has no images of {', '.join(map(repr, missing))}")
        if not self.multilabel and sum(self.label_separator in name for name in known) > 0:
            warnings.append(f"labels hold {self.label_separator!r}: for several per image, data.multilabel=true")
        return problems, warnings


class _Inside:
    """Finds files below a root and refuses all others; remembers the folders it has resolved."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real_root = os.path.realpath(root)
        self.allowed: dict[str, bool] = {}

    def find(self, typed: str) -> tuple[str, os.stat_result]:
        """Normalised relative path and its status. Raises ``DataError`` without the row."""
        if not typed:
            raise DataError("no path")
        name = os.path.normpath(typed)
        if "\0" in typed or Path(typed).is_absolute() or name == ".." or name.startswith(f"..{os.sep}"):
            raise DataError(f"path {typed!r} leaves data.path; it must be relative to it and stay inside")
        full = self.root / name
        if not self._is_inside(full):
            raise DataError(f"path {typed!r} leads out of data.path by a link")
        try:
            status = full.stat()
        except OSError as error:
            hint = "; paths use / here" if "\\" in typed else ""
            raise DataError(f"path {typed!r} cannot be read in data.path ({error.strerror}){hint}") from error
        if not full.is_file():
            raise DataError(f"path {typed!r} is no file")
        return name, status

    def _is_inside(self, full: Path) -> bool:
        folder = str(full.parent)
        if folder not in self.allowed:
            self.allowed[folder] = self._resolves_inside(folder)
        return self.allowed[folder] and (not full.is_symlink() or self._resolves_inside(full))

    def _resolves_inside(self, place: str | Path) -> bool:
        real = os.path.realpath(place)
        return real == self.real_root or real.startswith(self.real_root.rstrip(os.sep) + os.sep)


def _targets(labels: list[list[str]], known: tuple[str, ...], *, multilabel: bool) -> npt.NDArray[Any]:
    number = {name: index for index, name in enumerate(known)}
    if not multilabel:
        return np.array([number[own[0]] for own in labels], dtype=np.int64)
    targets_NK = np.zeros((len(labels), len(known)), dtype=np.float32)
    for row, own in enumerate(labels):
        targets_NK[row, [number[name] for name in own]] = 1.0
    return targets_NK
