"""Whole runs on uneven classes: the recipe's logit adjustment, balanced class weights instead, and neither.

    python -m bench.accuracy.uneven          # digits, half of the classes with a tenth of their images; seeds 1 and 2

Balanced accuracy on the test images, which are even. Runs lie in the benchmark's folder; a finished one is not repeated.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.accuracy.__main__ import ROOT
from bench.accuracy.datasets import Dataset, write

RATIO = 10
WAYS = {
    "logit adjustment (recipe)": (),
    "balanced weights": ("loss=cross_entropy", "loss.class_weights=balanced"),
    "plain": ("loss=cross_entropy",),
}


def folder_of(seed: int) -> Path:
    """Fifty digits a class as the benchmark draws them, with a tenth left of every other class, val included."""
    folder = ROOT / f"data/uneven-{seed}"
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.copytree(write(Dataset("digits", 50), seed, ROOT / "data"), part, dirs_exist_ok=True)
        rare = np.random.default_rng(seed).permutation(10)[:5]
        for split in ("train", "val"):
            for name in rare:
                images = sorted((part / split / str(name)).iterdir())
                for image in images[max(1, len(images) // RATIO) :]:
                    image.unlink()
        part.rename(folder)
    return folder


def main() -> None:
    """Print one line per way and seed."""
    for seed in (1, 2):
        for way, options in WAYS.items():
            run = ROOT / f"uneven-{seed}-{way.split()[0]}"
            command = [
                *(sys.executable, "-m", "finetune.train", f"data.path={folder_of(seed)}"),
                *("backbone=efficientnet_lite0", "logger=csv", "report=none", f"seed={seed}"),
                *(*options, f"hydra.run.dir={run}"),
            ]
            if not (run / "result.json").is_file():
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            result = json.loads((run / "result.json").read_text(encoding="utf-8"))
            kept = result["monitor"]["coefficient"]
            value = result["test"]["balanced_accuracy"]
            print(f"seed {seed}  {way:<26} {value:.3f}  kept {kept:g}", flush=True)


if __name__ == "__main__":
    main()
