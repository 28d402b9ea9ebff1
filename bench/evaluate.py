"""Evaluation against a bare loop of the same forward passes: what decoding, metrics, intervals and files cost on top.

In one process, ResNet-50, float32, batches of 32. The bare loop runs the network over tensors that are in memory
already. The page is left out: its cost does not grow with the images. Beside it the same evaluation with features that
an earlier command stored, as a probe's training does.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from bench.measure import alternate, seconds
from bench.table import Row

_BATCH = 32


def evaluation(images: Path, work: Path, repeats: int) -> Iterator[Row]:
    """``finetune.evaluate`` of an untrained ResNet-50 on ``images``, live and stored, and the network alone, in turn."""
    from finetune import build
    from finetune.checkpoint import read_checkpoint
    from finetune.config import CONF_DIR
    from finetune.evaluating import evaluate

    checkpoint = work / "evaluated.ckpt"
    _write_model(checkpoint, tuple(sorted(folder.name for folder in images.iterdir())))
    count = len(list(images.rglob("*.jpg")))
    overrides = [f"ckpt={checkpoint}", f"data.path={images}", "data.split=all", "device=cpu", "report=none"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        live = compose("evaluate", overrides=[*overrides, "cache=none"])
        stored = compose("evaluate", overrides=[*overrides, f"cache.dir={work / 'evaluated_features'}"])
    network = build.network_from_checkpoint(read_checkpoint(checkpoint)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch_BCHW = torch.randn(_BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(count // _BATCH):
                network(batch_BCHW)

    def evaluate_s(cfg: DictConfig) -> float:
        return seconds(lambda: evaluate(cfg, work / "evaluated", ()))

    bare()
    cold_s = evaluate_s(stored)
    sides = alternate(repeats, lambda: seconds(bare), lambda: evaluate_s(live), lambda: evaluate_s(stored))
    bare_s, live_s, warm_s = (statistics.median(times) for times in sides)
    note = f"{live_s:.1f} s / {bare_s:.1f} s, {count} images"
    yield Row("evaluate without its page / the forward passes alone", live_s / bare_s, "<= 1.15", note)
    note = f"{warm_s:.2f} s / {live_s:.1f} s; {cold_s:.1f} s when nothing is stored yet"
    yield Row("evaluate of stored features / the same with cache=none", warm_s / live_s, "<= 0.25", note)


def _write_model(path: Path, classes: tuple[str, ...]) -> None:
    """A checkpoint of an untrained ResNet-50."""
    from finetune import build
    from finetune.checkpoint import describe, write_checkpoint

    config = {
        "seed": 0,
        "data": {},
        "backbone": {"_target_": "finetune.backbone.timm_model.create_backbone", "name": "resnet50", "weights": "none"},
        "head": {"_target_": "finetune.head.linear.LinearHead"},
    }
    backbone = build.backbone(config["backbone"], 224)
    network = build.network(backbone, config["head"], len(classes))
    card = describe(
        task="multiclass", classes=classes, preprocessing=backbone.preprocessing, config=config,
        backbone={"name": "resnet50", "weights": ""}, versions={},
    )  # fmt: skip
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    write_checkpoint({"state_dict": state, "finetune": card, "global_step": 0, "epoch": 0}, path)
