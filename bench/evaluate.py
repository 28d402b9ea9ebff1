"""Evaluation against a bare loop of the same forward passes: what decoding, metrics, intervals and files cost on top.

    python -m bench.evaluate            about four minutes on two cores

ResNet-50, 256 photographs of 640 x 480, batches of 32, float32, channels_last, in one process. The bare loop runs the
network over tensors that are in memory already. The page (report=html) is timed apart: its cost does not grow with the
images. The ratio is to stay at 1.15 or below.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from finetune import build
from finetune.checkpoint import describe, read_checkpoint, write_checkpoint
from finetune.config import CONF_DIR
from finetune.evaluating import evaluate

_IMAGES, _BATCH, _REPEATS = 256, 32, 3
_CLASSES = ("a", "b", "c", "d")


def write_data(root: Path) -> None:
    """Smooth pictures with grain, as JPEG, in ``test/CLASS``."""
    rng = np.random.default_rng(0)
    for number in range(_IMAGES):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC), dtype=np.float32)
        path = root / "test" / _CLASSES[number % len(_CLASSES)] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


def write_model(path: Path) -> None:
    """A checkpoint of an untrained ResNet-50."""
    config: dict[str, Any] = {
        "seed": 0,
        "data": {},
        "backbone": {"_target_": "finetune.backbone.timm_model.create_backbone", "name": "resnet50", "weights": "none"},
        "head": {"_target_": "finetune.head.linear.LinearHead"},
    }
    backbone = build.backbone(config["backbone"], 224)
    network = build.network(backbone, config["head"], len(_CLASSES))
    card = describe(
        task="multiclass", classes=_CLASSES, preprocessing=backbone.preprocessing, config=config,
        backbone={"name": "resnet50", "weights": ""}, versions={},
    )  # fmt: skip
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    write_checkpoint({"state_dict": state, "finetune": card, "global_step": 0, "epoch": 0}, path)


def bare_loop(path: Path) -> Callable[[], None]:
    """The same number of forward passes over one batch in memory."""
    network = build.network_from_checkpoint(read_checkpoint(path)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images_BCHW = torch.randn(_BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(_IMAGES // _BATCH):
                network(images_BCHW)

    return run


def seconds(function: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure() -> dict[str, float]:
    """Alternate, take the best of each."""
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        root = Path(folder)
        write_data(root / "data")
        write_model(root / "model.ckpt")
        overrides = [f"ckpt={root / 'model.ckpt'}", f"data.path={root / 'data'}", "device=cpu"]
        plain = compose("evaluate", overrides=[*overrides, "report=none"])
        paged = compose("evaluate", overrides=overrides)
        bare = bare_loop(root / "model.ckpt")
        bare()
        times: dict[str, list[float]] = {"bare": [], "evaluate": []}
        for _ in range(_REPEATS):
            times["bare"].append(seconds(bare))
            times["evaluate"].append(seconds(lambda: evaluate(plain, root / "out", ())))
        page_s = seconds(lambda: evaluate(paged, root / "out", ())) - min(times["evaluate"])
    best = {name: min(found) for name, found in times.items()}
    return {
        "bare_s": round(best["bare"], 2),
        "evaluate_s": round(best["evaluate"], 2),
        "ratio": round(best["evaluate"] / best["bare"], 3),
        "limit": 1.15,
        "page_s": round(page_s, 2),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
