"""Commands and functions under the clock, alternating, medians; and the peak memory of commands.

The clock is the wall's. ``use_processor_clock`` takes the processor's instead, for a machine that others use at the
same time: what a computation costs then shows through, whoever else is running.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parent.parent


_clock = {"wall": True}


def use_processor_clock() -> None:
    """Count processor seconds from now on, on one thread, which spends none of them waiting for another."""
    _clock["wall"] = False
    os.environ["OMP_NUM_THREADS"] = "1"


def now() -> float:
    """Seconds by the clock in use."""
    return time.perf_counter() if _clock["wall"] else time.process_time()


class Cost(NamedTuple):
    """What one command took by the clock in use; ``peak_mib`` is its own process's peak (NaN where there is no /proc)."""

    seconds: float
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
    peak = _Peak(process.pid)
    peak.start()
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != expected:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{output[-3000:]}")
    wall_s, processor_s = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    return Cost(wall_s if _clock["wall"] else processor_s, peak.mib)


class _Peak(threading.Thread):
    """Reads a process's high-water mark until it ends. Its ru_maxrss would do, did it not begin at this process's own."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.mib = math.nan
        self._status = Path(f"/proc/{pid}/status")

    def run(self) -> None:
        """Twenty times a second; a process that has ended has no such line, and then no such file."""
        with contextlib.suppress(OSError):
            while found := re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text()):
                self.mib = int(found[1]) / 1024
                time.sleep(0.05)


def alternate(repeats: int, *sides: Callable[[], T]) -> list[list[T]]:
    """Call the sides in turn, ``repeats`` times; gives each side's results."""
    results: list[list[T]] = [[] for _ in sides]
    for _ in range(repeats):
        for found, side in zip(results, sides, strict=True):
            found.append(side())
    return results


def seconds(function: Callable[[], object]) -> float:
    """What one call takes."""
    started = now()
    function()
    return now() - started


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Medians of each figure."""
    return Cost(*(statistics.median(figures) for figures in zip(*costs, strict=True)))
