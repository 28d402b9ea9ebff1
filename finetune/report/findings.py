"""What the examination of the data found, in lines for the page: leaks between splits, duplicates, damaged files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def findings(data_report: Mapping[str, Any]) -> list[str]:
    """One line per finding of ``data_report.json``, errors before warnings; empty when there is nothing to tell."""
    return []
