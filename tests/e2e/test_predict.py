"""``python -m finetune.predict`` as a user types it: exit codes, messages, memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.classifier.conftest import write_checkpoint_of

MEASURED = """
import atexit, re, sys
sys.argv = ["predict", *sys.argv[1:]]
from finetune.predict import main

@atexit.register
def say():
    status = open("/proc/self/status").read()  # ru_maxrss would begin at the peak of the process that started this one
    print("peak_mib", int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024)

main()
"""


def predict(*arguments: str, program: tuple[str, ...] = ("-m", "finetune.predict")) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *program, *arguments], capture_output=True, text=True, check=False)


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / f"{number:05d}.png")
    return folder


def test_a_damaged_file_is_skipped_with_exit_code_one_and_wrong_input_is_two(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 3)
    (folder / "00001.png").write_bytes(b"damaged")
    options = ("backbone=efficientnet_lite0", "image_size=64", f"hydra.run.dir={tmp_path / 'out'}")
    run = predict(f"input={folder}", *options)
    assert run.returncode == 1, run.stderr
    assert "1 of 3 images could not be read" in run.stderr
    assert "00001.png" in run.stderr
    assert "Traceback" not in run.stderr
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 2

    run = predict(f"input={folder}x", "tta=spin", *options)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    run = predict(*options)
    assert run.returncode == 2
    assert "input is missing" in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_ten_thousand_images_need_no_more_memory_than_five_hundred(stored: bool, tmp_path: Path) -> None:
    peaks = []
    model = ("backbone=efficientnet_lite0", "image_size=32")
    if stored:  # 51 MB of features
        backbone = {
            "_target_": "finetune.backbone.timm_model.create_backbone",
            "name": "tf_efficientnet_lite0",
            "weights": "none",
        }
        model = (f"ckpt={write_checkpoint_of(tmp_path / 'model.ckpt', size_px=32, config={'backbone': backbone})}",)
    for count in (500, 10_000):
        folder = write_images(tmp_path / f"images{count}", count)
        out = tmp_path / f"out{count}"
        options = (*model, f"hydra.run.dir={out}")
        run = predict(f"input={folder}", *options, program=("-c", MEASURED))
        assert run.returncode == 0, run.stderr
        peaks.append(float(run.stdout.partition("peak_mib ")[2]))
        with (out / "predictions.csv").open() as file:
            assert sum(1 for _ in file) == count + 1
    print(f"peak memory: {peaks[0]:.0f} MiB for 500 images, {peaks[1]:.0f} MiB for 10,000")
    assert peaks[1] - peaks[0] < (30 if stored else 60)
