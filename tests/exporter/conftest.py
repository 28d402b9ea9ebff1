"""Small run directories with checkpoints, made without training: the head is fitted by least squares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

TARGETS = {
    "linear": {"_target_": "finetune.head.linear.LinearHead", "dropout": 0.0},
    "mlp": {"_target_": "finetune.head.mlp.MLPHead", "hidden": 32, "dropout": 0.1},
    "cosine": {"_target_": "finetune.head.cosine.CosineHead", "scale": 16.0, "dropout": 0.0},
}
CLASSES = ("amber", "blue", "coral")


def make_run(
    root: Path,
    *,
    backbone: str = "test_resnet.r160_in1k",
    head: str = "linear",
    task: str = "multiclass",
    size_px: int = 64,
    n: int = 12,
    seed: int = 0,
    temperature: float = 1.5,
) -> Path:
    """A run directory with images, split.csv and checkpoints/best.ckpt; gives the checkpoint's path."""
    from finetune import build
    from finetune.checkpoint import describe, write_checkpoint

    torch.manual_seed(seed)
    rows = _write_images(root / "images", task, n, seed)
    multilabel = task == "multilabel"
    data = {"_target_": "finetune.data.folder.FolderData", "path": str(root / "images"), "image_size": size_px}
    if multilabel:
        (root / "labels.csv").write_text("\n".join(["path,label,split", *(f"{a},{b},{c}" for a, b, c in rows)]) + "\n")
        data |= {"_target_": "finetune.data.csv.CsvData", "file": str(root / "labels.csv"), "multilabel": True}
    config: dict[str, Any] = {
        "seed": 0,
        "data": data,
        "backbone": {"_target_": "finetune.backbone.timm_model.create_backbone", "name": backbone, "weights": "none"},
        "head": TARGETS[head],
    }
    feature_extractor = build.backbone(config["backbone"], size_px)
    network = build.network(feature_extractor, config["head"], len(CLASSES))
    _randomise_statistics(network)
    table = build.part(data, 0).load()
    _fit_head(network.eval(), feature_extractor.preprocessing, table)
    table.write_csv(root / "split.csv")
    card = describe(
        task=task,
        classes=table.classes,
        preprocessing=feature_extractor.preprocessing,
        config=config,
        backbone={"name": backbone, "weights": ""},
        versions={"torch": str(torch.__version__)},
    )
    card |= {"metrics": {"val": {"accuracy": 0.9}}, "temperature": temperature}
    if multilabel:
        card["thresholds"] = [0.4, 0.5, 0.6]
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    path = root / "checkpoints" / "best.ckpt"
    write_checkpoint({"state_dict": state, "finetune": card, "global_step": 1, "epoch": 0}, path)
    return path


def _write_images(folder: Path, task: str, n: int, seed: int) -> list[tuple[str, str, str]]:
    """A colour per class in one half of the picture; multi-label images show any of them in thirds."""
    rng = np.random.default_rng(seed)
    colours = {"amber": (220, 160, 30), "blue": (30, 60, 210), "coral": (230, 90, 90)}
    rows = []
    for number in range(n * len(CLASSES)):
        height, width = (int(side) for side in rng.integers(50, 120, 2))
        pixels = rng.integers(0, 256, (height, width, 3)).astype(float) * 0.4
        one = [CLASSES[number % len(CLASSES)]]
        shown = one if task == "multiclass" else [name for name in CLASSES if rng.random() < 0.5]
        for name in shown:
            start = 0 if task == "multiclass" else CLASSES.index(name) * width // 3
            end = width if task == "multiclass" else start + width // 3
            pixels[:, start:end] += np.array(colours[name]) * 0.6
        split = "train" if number < 2 * n else "val"
        relative = f"{split}/{shown[0]}/{number:03d}.png" if task == "multiclass" else f"{number:03d}.png"
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / relative)
        rows.append((relative, "|".join(shown), split))
    return rows


def _randomise_statistics(network: torch.nn.Module) -> None:
    """BatchNorms as a training leaves them, so that folding has something to fold."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


@torch.no_grad()
def _fit_head(network: Any, preprocessing: Any, table: Any) -> None:
    """Ridge regression from features to +-4 on the last linear layer; the layers before it stay random."""
    from finetune.data.image import read_image

    images = np.stack([preprocessing.resize_crop(read_image(table.path(row))) for row in range(len(table))])
    features_BD = network.backbone(preprocessing.normalize(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())))
    linear = [module for module in network.head.modules() if isinstance(module, torch.nn.Linear)][-1]
    entering: list[torch.Tensor] = []
    handle = linear.register_forward_hook(lambda _module, inputs, _output: entering.append(inputs[0]))
    network.head(features_BD)
    handle.remove()
    if entering:
        features_BD = entering[0]
    targets = torch.from_numpy(np.asarray(table.targets))
    wanted_BK = (targets if targets.ndim == 2 else torch.nn.functional.one_hot(targets, len(CLASSES))).float() * 8 - 4
    centred_BD = features_BD - features_BD.mean(0)
    gram = centred_BD.T @ centred_BD + 1e-2 * torch.eye(centred_BD.shape[1]) * centred_BD.square().sum(1).mean()
    weight_DK = torch.linalg.solve(gram, centred_BD.T @ wanted_BK)
    linear.weight.copy_(weight_DK.T)
    if linear.bias is not None:
        linear.bias.copy_(wanted_BK.mean(0) - features_BD.mean(0) @ weight_DK)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``run_of(backbone=..., head=..., task=...)``: the checkpoint of a small run, made once per session."""

    @functools.cache
    def make(**options: Any) -> Path:
        return make_run(tmp_path_factory.mktemp("run"), **options)

    return make


@pytest.fixture
def export_of(tmp_path: Path) -> Callable[..., Any]:
    """``export_of(ckpt, "exporter=onnx", ...)``: the finished artefact (directory, metadata), below tmp_path."""
    from hydra import compose, initialize_config_dir

    from finetune.config import CONF_DIR
    from finetune.exporting import export

    def run(ckpt: Path, *overrides: str) -> Any:
        target = tmp_path / f"artefact-{len(list(tmp_path.iterdir()))}"
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = compose("export", overrides=[f"ckpt={ckpt}", f"output={target}", "latency_runs=0", *overrides])
        return export(cfg)

    return run
