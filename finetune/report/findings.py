"""What the examination of the data found (``data_report.json``), for the page: leaks, duplicates, damaged files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_DETAILS = 50


class Finding(NamedTuple):
    """One headline, and the files behind it (at most ``MAX_DETAILS``)."""

    text: str
    details: tuple[str, ...] = ()


def findings(data_report: Mapping[str, Any]) -> list[Finding]:
    """The worst first; empty when nothing was found, or nothing was examined."""
    if not data_report:
        return []
    found = [Finding(text) for text in (*data_report["problems"], *data_report["warnings"])]
    duplicates = data_report["duplicates"]
    pairs = duplicates["pairs"]
    leaks = duplicates["exact_across_splits"] + duplicates["near_across_splits"]
    kinds = (
        (leaks, "pairs of the same picture in different splits: figures may flatter", lambda pair: pair["splits"]),
        (
            duplicates["with_different_labels"],
            "pairs of the same picture with different labels",
            lambda pair: pair["labels"],
        ),
    )
    for count, text, sides in kinds:
        if count:
            apart = [pair for pair in pairs if sides(pair)[0] != sides(pair)[1]]
            found.append(Finding(f"{count} {text}", tuple(_pair(pair, sides(pair)) for pair in apart[:MAX_DETAILS])))
    for key, text in (
        ("unreadable", "files cannot be read and were left out"),
        ("suspect", "files are damaged, but used"),
    ):
        if data_report[f"num_{key}"]:
            details = tuple(f"{entry['path']}: {entry['reason']}" for entry in data_report[key][:MAX_DETAILS])
            found.append(Finding(f"{data_report[f'num_{key}']} {text}", details))
    return found


def _pair(pair: Mapping[str, Any], sides: list[str]) -> str:
    kind = "the same bytes" if pair["kind"] == "exact" else "nearly the same"
    return f"{pair['path']} ({sides[0]}) and {pair['other']} ({sides[1]}): {kind}"
