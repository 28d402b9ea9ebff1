"""How fast a command answers: --help and a typing error against importing Hydra alone, five runs each, in turn.

    python benchmarks/start.py

Prints medians of wall and processor seconds, and their ratios to ``import hydra``; at most 2.0 is wanted of --help.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import hydra": ["-c", "import hydra"],
    "--help": ["-m", "finetune.train", "--help"],
    "a typing error": ["-m", "finetune.train", "data.path=nowhere", "optimizer.lrr=1"],
}
RUNS = 5


def measure(arguments: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one command."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure in turn, so that what else the machine does falls on all alike."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            found[name].append(measure(arguments))
    medians = {name: [statistics.median(values) for values in zip(*runs, strict=True)] for name, runs in found.items()}
    base = medians["import hydra"]
    print(f"{'':<16}{'wall s':>8}{'ratio':>8}{'cpu s':>8}{'ratio':>8}   median of {RUNS}")  # noqa: T201
    for name, (wall_s, cpu_s) in medians.items():
        print(f"{name:<16}{wall_s:>8.2f}{wall_s / base[0]:>8.2f}{cpu_s:>8.2f}{cpu_s / base[1]:>8.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
