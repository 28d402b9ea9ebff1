"""The linear head on a million rows: seconds, iterations over the data and the largest memory that the process had.

    python bench/solver_scale.py --rows 1000000 --columns 2048 --classes 10 --threads 2 --strength 0.001

Rows are float16 in a file (4 GB of disk at this size), read in pieces as stored features are; a class is a direction in
noise. Without ``--strength`` it is cross-validated, and weak ones take a hundred passes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.probe import Problem, solve

_BLOCK = 50_000


def write(path: Path, labels_N: npt.NDArray[np.int64], columns: int) -> None:
    """Noise of unit variance plus 2 along the column of the row's class."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, len(labels_N), _BLOCK):
            part = labels_N[start : start + _BLOCK]
            rows = rng.standard_normal((len(part), columns), dtype=np.float32)
            rows[np.arange(len(part)), part] += 2
            rows.astype(np.float16).tofile(file)


def main() -> None:
    """Solve once, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="solver_scale.py", description=(__doc__ or "").split("\n")[0])
    for name, default in (("rows", 1_000_000), ("columns", 2048), ("classes", 10), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--strength", type=float)
    chosen = parser.parse_args()
    labels_N = np.random.default_rng(1).integers(0, chosen.classes, chosen.rows)
    passes = [0.0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        write(path, labels_N, chosen.columns)

        def read(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            passes[0] += len(positions) / chosen.rows
            mapped = np.memmap(path, np.float16, "r", shape=(chosen.rows, chosen.columns))
            return mapped[positions].astype(np.float32)

        def targets(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            return np.eye(chosen.classes)[labels_N[positions]]

        started = time.monotonic()
        found = solve(
            Problem(read, targets, np.ones(chosen.rows), multilabel=False), 0, chosen.strength, chosen.threads
        )
        seconds = time.monotonic() - started
        sample = np.arange(0, chosen.rows, max(1, chosen.rows // 20_000))
        right = ((read(sample) @ found.weight_KD.T + found.bias_K).argmax(axis=1) == labels_N[sample]).mean()
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures = {"seconds": round(seconds), "passes": round(passes[0], 1), "peak_gb": round(peak_gb, 2)}
    json.dump(vars(chosen) | figures | {"strength": found.strength, "accuracy": round(float(right), 4)}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
