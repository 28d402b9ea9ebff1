"""``data.split_file=split.csv``: exactly the images, labels and split of an earlier run, wherever the folder is now.

An image that the file names and the folder lacks is an error, one whose label differs as well; one that the folder has
and the file does not name is left out with a warning. Hashes are compared by the examination, which reads every file.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from finetune.data.table import SPLITS, Table
from finetune.errors import DataError, combine

_COLUMNS = ("path", "label", "split", "sha256")


def replay(table: Table, file: Path, typed: str) -> Table:
    """The rows that ``file`` names, in its order. ``typed``: the file as the user wrote it. Raises ``DataError``."""
    row_of = {table.name(row): row for row in range(len(table))}
    rows, codes, hashes, problems = [], [], [], list[str]()
    for line, record in _records(file, typed):
        row = row_of.pop(os.fsencode(record["path"]), None)
        where = f"data.split_file={typed} line {line}: {record['path']!r}"
        if row is None:
            problems.append(f"{where} is not in {table.root} (or named twice)")
        elif record["split"] not in SPLITS:
            problems.append(f"{where} has split {record['split']!r}; expected train, val or test")
        elif record["label"] != table.label(row):
            problems.append(f"{where} is {record['label']!r} there and {table.label(row)!r} in the folder")
        else:
            rows.append(row)
            codes.append(SPLITS.index(record["split"]))
            hashes.append(_digest(record["sha256"]))
    if problems:
        more = [f"and {len(problems) - 20} more like these"] if len(problems) > 20 else []
        raise combine([DataError(text) for text in problems[:20] + more])
    if not rows:
        raise DataError(f"data.split_file={typed} names no images")
    chosen = table.select(np.array(rows, dtype=np.int64))
    warnings = table.source.warnings
    if row_of:
        first = os.fsdecode(next(iter(row_of)))
        warnings += (f"{len(row_of)} image(s) are not in data.split_file={typed} and are left out (first: {first})",)
    return chosen.replace(
        split=np.array(codes, dtype=np.int8),
        hashes=np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 32).copy(),
        source=dataclasses.replace(table.source, warnings=warnings),
    )


def _records(file: Path, typed: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            reader = csv.DictReader(stream, strict=True)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                expected = ",".join(_COLUMNS)
                raise DataError(f"data.split_file={typed} lacks column {', '.join(missing)}; expected {expected}")
            records = [(reader.line_num, record) for record in reader]
    except OSError as error:
        raise DataError(f"data.split_file={typed} cannot be read ({error.strerror})") from error
    except csv.Error as error:
        raise DataError(f"data.split_file={typed} is no CSV file ({error})") from error
    short = [str(line) for line, record in records if None in record or None in record.values()]
    if short:
        raise DataError(f"data.split_file={typed}: wrong number of values in line {', '.join(short[:10])}")
    return records


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return bytes(32)
    return digest if len(digest) == 32 else bytes(32)
