"""Is the default at least as good as what else there is? One table of means and intervals: docs/benchmark.md.

    make benchmark                                             # everything, hours; what is done is not done again
    make benchmark ARGS="--sets clipart-all digits-10"         # some of it
    make benchmark ARGS="--report"                             # only write the table from what has been run

Every run leaves one JSON file in runs/benchmark/rows, named SET-SEED-CONTESTANT, so that it can be stopped at any time.
``finetune``, ``finetune-fast`` and ``resnet50-scratch`` are this package's commands with nothing said but the network, the
folder and ``recipe=fast``; the rivals get the epochs, the image size and the batch that our recipe chose for the set, as
its row records them. One thread each: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.accuracy.datasets import REPOSITORY, Dataset, write
from bench.accuracy.table import page

ROOT = REPOSITORY / "runs/benchmark"
ROWS = ROOT / "rows"
DATASETS = (
    Dataset("clipart", 5),
    Dataset("clipart", 10),
    Dataset("clipart", None),
    Dataset("digits", 5),
    Dataset("digits", 10),
    Dataset("digits", 50),
    Dataset("fashion", 10),
    Dataset("fashion", 100),
    Dataset("fashion", 600),
)
OURS = {
    "finetune": ("backbone=efficientnet_lite0",),
    "finetune-fast": ("backbone=efficientnet_lite0", "recipe=fast"),
    "resnet50-scratch": ("backbone=resnet50_from_scratch", "backbone.weights=none"),
}
RECIPE = {"epochs": "trainer.max_epochs", "size": "data.image_size", "batch": "data.batch_size"}
"""What a rival is told of our recipe, and the keys that decide it."""
RIVALS = ("logistic", "logistic-all", "fastai", "timm")


def main() -> None:
    """Run what is not there yet, then write the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=(__doc__ or "").split("\n")[0])
    names = [str(dataset) for dataset in DATASETS]
    parser.add_argument("--sets", nargs="*", choices=names, default=names)
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--contestants", nargs="*", choices=[*OURS, *RIVALS], default=[*OURS, *RIVALS])
    parser.add_argument("--report", action="store_true", help="run nothing, write the table")
    chosen = parser.parse_args()
    if not chosen.report:
        for seed in chosen.seeds:
            for dataset in DATASETS:
                if str(dataset) in chosen.sets:
                    for contestant in sorted(chosen.contestants, key=[*OURS, *RIVALS].index):
                        run(dataset, seed, contestant)
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(ROWS.glob("*.json"))]
    (REPOSITORY / "docs/benchmark.md").write_text(page(rows, [str(dataset) for dataset in DATASETS]), encoding="utf-8")


def run(dataset: Dataset, seed: int, contestant: str) -> None:
    """One run, unless its row is there; a row is written whole, after the run has ended well."""
    row = ROWS / f"{dataset}-{seed}-{contestant}.json"
    if row.is_file():
        return
    folder = write(dataset, seed, ROOT / "data")
    directory = ROOT / f"{dataset}-{seed}-{contestant}"
    command = (
        _ours(folder, seed, contestant, directory) if contestant in OURS else _rival(dataset, seed, contestant, folder)
    )
    print(f"$ {shlex.join(command)}", flush=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(directory / "cache"),  # nothing is known from earlier runs
        "MPLCONFIGDIR": str(ROOT / "fonts"),
    }
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shutil.rmtree(directory / "cache", ignore_errors=True)
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}\nit ended with code {done.returncode}")
    content: dict[str, Any] = {
        "set": str(dataset),
        "seed": seed,
        "contestant": contestant,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor_s, 1),
    }
    if contestant in OURS:
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        content["test_accuracy"] = result["test"]["accuracy"]
        content["candidates"] = result["candidates"]
        content["kept"] = result["monitor"]["coefficient"]
        decisions = json.loads((directory / "recipe.json").read_text(encoding="utf-8"))["decisions"]
        chosen = {decision["key"]: decision["value"] for decision in decisions}
        content["recipe"] = {name: chosen[key] for name, key in RECIPE.items()}
    else:
        content |= json.loads(done.stdout.strip().splitlines()[-1].rpartition("\r")[2])
    content["command"] = shlex.join(command)
    ROWS.mkdir(parents=True, exist_ok=True)
    part = row.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2), encoding="utf-8")
    part.replace(row)
    print(f"  {content['test_accuracy']:.3f} in {seconds:.0f} s", flush=True)


def _ours(folder: Path, seed: int, contestant: str, directory: Path) -> Sequence[str]:
    return [
        *("python", "-m", "finetune.train", f"data.path={folder.relative_to(REPOSITORY)}"),
        *OURS[contestant],
        *("logger=csv", f"seed={seed}"),
        f"hydra.run.dir={directory.relative_to(REPOSITORY)}",
    ]


def _rival(dataset: Dataset, seed: int, contestant: str, folder: Path) -> Sequence[str]:
    """At the epochs, size and batch of our own run of the set."""
    record = ROWS / f"{dataset}-{seed}-finetune.json"
    if not record.is_file():
        raise SystemExit(
            f"{contestant} takes its epochs from our own run; run finetune on {dataset} with seed {seed} first"
        )
    recipe = json.loads(record.read_text(encoding="utf-8"))["recipe"]
    return [
        *("python", "-m", "bench.accuracy.rival", contestant, str(folder.relative_to(REPOSITORY))),
        *(part for name in RECIPE for part in (f"--{name}", str(recipe[name]))),
        *("--seed", str(seed)),
    ]


if __name__ == "__main__":
    main()
