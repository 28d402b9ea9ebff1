"""One measured ratio with its bar, and the table of them on the screen and in ``bench.json``."""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """``bar`` is an operator and a number, as in ``<= 1.25``; ``note`` has the absolute figures."""

    name: str
    value: float
    bar: str
    note: str

    @property
    def holds(self) -> bool:
        """Whether the figure meets its bar."""
        relation, limit = self.bar.split()
        return bool({"<=": operator.le, ">=": operator.ge}[relation](self.value, float(limit)))

    def line(self) -> str:
        """As the table shows it."""
        return f"{self.value:7.2f}  {self.bar:>8}  {'ok    ' if self.holds else 'MISSED'}  {self.name}  ({self.note})"


def write(path: Path, rows: list[Row], machine: dict[str, Any], seconds: float) -> None:
    """``bench.json``: the machine, the rows and how long it all took."""
    found = [row._asdict() | {"holds": row.holds} for row in rows]
    path.write_text(json.dumps({"machine": machine, "seconds": round(seconds, 1), "rows": found}, indent=2) + "\n")
