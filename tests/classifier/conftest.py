"""A checkpoint of a small network with random weights, written without training, beside a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

CLASSES = ("amber", "blue", "coral")


def write_checkpoint_of(
    path: Path, *, seed: int = 0, size_px: int = 64, classes: tuple[str, ...] = CLASSES, **card: Any
) -> Path:
    """A test_resnet whose scores differ from image to image; ``card`` replaces entries of the description."""
    from finetune import build
    from finetune.checkpoint import describe, write_checkpoint

    torch.manual_seed(seed)
    config: dict[str, Any] = {
        "seed": 0,
        "data": {"_target_": "finetune.data.folder.FolderData", "path": "elsewhere", "val_fraction": 0.5},
        "backbone": {
            "_target_": "finetune.backbone.timm_model.create_backbone",
            "name": "test_resnet.r160_in1k",
            "weights": "none",
        },
        "head": {"_target_": "finetune.head.linear.LinearHead"},
    } | card.pop("config", {})
    backbone = build.backbone(config["backbone"], size_px)
    network = build.network(backbone, config["head"], len(classes))
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.mul_(20)
    described = describe(
        task="multiclass",
        classes=classes,
        preprocessing=backbone.preprocessing,
        config=config,
        backbone={"name": "test_resnet", "weights": ""},
        versions={},
    )
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint({"state_dict": state, "finetune": described | card, "global_step": 1, "epoch": 0}, path)
    return path


@pytest.fixture(scope="session")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for three classes with temperature 1.5."""
    return write_checkpoint_of(tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt", temperature=1.5)


@pytest.fixture
def checkpoint_of() -> Callable[..., Path]:
    """``checkpoint_of(path, seed=, classes=, temperature=, ...)``."""
    return write_checkpoint_of


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of different sizes in two folders."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = root / ("a" if number % 2 else "b")
        folder.mkdir(exist_ok=True)
        height, width = rng.integers(40, 140, 2)
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((int(width), int(height))).save(folder / f"{number:02d}.png")
    return root
