"""Commands and functions under the clock: wall seconds, processor seconds, peak memory; alternating, medians."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parent.parent


class Cost(NamedTuple):
    """What one command took; ``peak_mib`` is that of its largest process."""

    wall_s: float
    processor_s: float
    peak_mib: float


def command(*words: str, environment: dict[str, str] | None = None, expected: int = 0) -> Cost:
    """Run ``python words...`` in the repository. Raises ``RuntimeError`` with its last lines when it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != expected:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{output[-3000:]}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def alternate(repeats: int, *sides: Callable[[], T]) -> list[list[T]]:
    """Call the sides in turn, ``repeats`` times; gives each side's results."""
    results: list[list[T]] = [[] for _ in sides]
    for _ in range(repeats):
        for found, side in zip(results, sides, strict=True):
            found.append(side())
    return results


def seconds(function: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Medians of each figure."""
    return Cost(*(statistics.median(figures) for figures in zip(*costs, strict=True)))
