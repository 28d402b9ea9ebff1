"""Speed as ratios, each measured within one run, its sides in turn: a table on the screen and ``bench.json``.

    python -m bench                      # everything but compile, within ten minutes on two cores
    python -m bench data start           # some of it; --help names the groups
    python -m bench probe --images 1500  # with a larger data set

ResNet-50 at 224 px without pretrained weights (timing does not see them) on photographs that ``photographs.py`` makes.
A ratio compares two things that ran minutes apart at most, on the same files, so it can be repeated on any machine.
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import measure, table
from bench.measure import REPOSITORY
from bench.table import Row

ON_REQUEST = {"compile"}
"""Groups that run only when they are named: everything else takes ten minutes."""


def main() -> None:
    """Measure, print as it goes, write."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n")[0])
    known = list(groups(Path(), 0, 0))
    parser.add_argument("rows", nargs="*", metavar="ROWS", help=f"only these groups of rows: {', '.join(known)}")
    parser.add_argument("--images", type=int, default=715, help="photographs of the probe's data set (default 715)")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of the rows that compare whole commands")
    parser.add_argument(
        "--clock", choices=("wall", "processor"), default="wall", help="processor: others work here too"
    )
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.rows) - set(known)):
        parser.error(f"unknown rows: {', '.join(unknown)}; there are {', '.join(known)}")
    os.environ |= {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    os.environ.pop("OMP_NUM_THREADS", None)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(REPOSITORY / "finetune", quiet=1)  # as after the first command on any machine
    if chosen.clock == "processor":
        measure.use_processor_clock()
    started = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as work:
        fonts = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "matplotlib"
        os.environ.setdefault("MPLCONFIGDIR", str(fonts))  # its list of fonts takes seconds to build, once on a machine
        os.environ["XDG_CACHE_HOME"] = f"{work}/cache"
        for name, rows_of in groups(Path(work), chosen.images, chosen.repeats).items():
            if name not in (chosen.rows or set(known) - ON_REQUEST):
                continue
            for row in rows_of():
                rows.append(row)
                print(row.line(), flush=True)
                table.write(chosen.output, rows, machine() | {"clock": chosen.clock}, time.monotonic() - started)
    print(
        f"{sum(row.holds for row in rows)} of {len(rows)} bars hold; "
        f"{time.monotonic() - started:.0f} s; {chosen.output}"
    )


def groups(work: Path, count: int, repeats: int) -> dict[str, Callable[[], Iterator[Row]]]:
    """Rows by what they are about, in the order in which they run."""
    from bench import data, evaluate, loading, networks, photographs, whole_commands

    def small() -> Path:
        return photographs.write(work / "small", count, photographs.SMALL)

    def few() -> Path:
        return photographs.write(work / "few", 192, photographs.SMALL)

    def some() -> Path:
        return photographs.write(work / "some", 384, photographs.SMALL)

    def large() -> Path:
        return photographs.write(work / "large", 12, photographs.LARGE)

    return {
        "start": lambda: whole_commands.start(5),
        "data": lambda: data.data(work, max(3, repeats)),
        "loading": lambda: loading.loaders(large(), few(), 3),
        "trunk": lambda: networks.trunk(5),
        "compile": lambda: networks.compiled(work, 5),
        "probe": lambda: whole_commands.probe(small(), work, repeats),
        "sweep": lambda: whole_commands.sweep(few(), work),
        "boundary": lambda: networks.boundary(few(), work),
        "full": lambda: networks.full(few(), work),
        "depthwise": lambda: networks.depthwise(2),
        "evaluate": lambda: evaluate.evaluation(some(), work, 2),
    }


def machine() -> dict[str, str | int | list[float]]:
    """What the figures were measured on; a load above the number of cores says that they are noisy."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "system": sys.platform,
    }


if __name__ == "__main__":
    main()
