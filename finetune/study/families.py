"""Families through one recipe: accuracy, parameters, multiplications and speed, as a table and a picture.

Parameters and FLOPs are counted on the network itself, built without memory for its weights; a multiplication and an
addition count as two FLOPs, as torch counts them. Speed is that of the forward pass on this machine, the networks in
turn, so that whatever else the machine does weighs on all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finetune.study.runs import Run

if TYPE_CHECKING:
    from torch import nn


class Family(NamedTuple):
    """One line of the table."""

    name: str
    weights: str
    accuracy: float | None
    parameters: int
    gflops: float
    images_per_s: float


class Cost(NamedTuple):
    """What one image costs a backbone."""

    parameters: int
    flops: int


def applies(runs: Sequence[Run]) -> bool:
    """Whether the runs have different backbones and the same data, size and recipe."""
    if not all({"name", "weights"} <= run.backbone.keys() for run in runs):
        return False
    names = {run.backbone["name"] for run in runs}
    same = {(run.config["data"]["path"], run.config["data"]["image_size"], run.config["seed"]) for run in runs}
    return len(names) == len(runs) > 1 and len(same) == 1


def draw(runs: Sequence[Run], output: Path) -> str:
    """Write ``families.png`` into ``output`` and give the table in Markdown."""
    image_size = int(runs[0].config["data"]["image_size"])
    speeds = images_per_s([str(run.backbone["name"]) for run in runs], image_size)
    families = [_family(run, image_size, speed) for run, speed in zip(runs, speeds, strict=True)]
    output.mkdir(parents=True, exist_ok=True)
    _picture(families, output / "families.png")
    return table(families)


def table(families: Sequence[Family]) -> str:
    """One line per family, the best first."""
    lines = ["| network | weights | test accuracy | parameters | GFLOPs | images/s |", "|---|---|---|---|---|---|"]
    for one in sorted(families, key=lambda one: -(one.accuracy or 0.0)):
        accuracy = "-" if one.accuracy is None else f"{one.accuracy:.2f}"
        figures = f"{one.parameters / 1e6:.1f} M | {one.gflops:.2f} | {one.images_per_s:.0f}"
        lines.append(f"| {one.name} | {one.weights} | {accuracy} | {figures} |")
    return "\n".join(lines)


def cost(name: str, image_size: int) -> Cost:
    """Parameters and FLOPs of a backbone at one image of this size."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad():
        module = _untrained(name, image_size)
        with FlopCounterMode(display=False) as counter:
            module(torch.zeros(1, 3, image_size, image_size))
    return Cost(sum(parameter.numel() for parameter in module.parameters()), counter.get_total_flops())


def images_per_s(names: Sequence[str], image_size: int, *, batch_size: int = 16, rounds: int = 7) -> list[float]:
    """Images a second of each backbone's forward pass in float32: medians over rounds in which each has its turn."""
    import torch

    modules = [_untrained(name, image_size) for name in names]
    images_BCHW = torch.rand(batch_size, 3, image_size, image_size)
    seconds: list[list[float]] = [[] for _ in names]
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for module, times in zip(modules, seconds, strict=True):
                started = time.perf_counter()
                module(images_BCHW)
                times.append(time.perf_counter() - started)
    return [batch_size / statistics.median(times[1:]) for times in seconds]  # the first warmed up


def _untrained(name: str, image_size: int) -> nn.Module:
    from finetune import build

    node = {"_target_": "finetune.backbone.timm_model.create_backbone", "name": name, "weights": "none"}
    return build.backbone(node, image_size).module.eval()


def _family(run: Run, image_size: int, speed: float) -> Family:
    name = str(run.backbone["name"])
    counted = cost(name, image_size)
    weights = "scratch" if run.backbone["weights"] == "none" else str(run.backbone["weights"])
    return Family(name, weights, run.test("accuracy"), counted.parameters, counted.flops / 1e9, speed)


def _picture(families: Sequence[Family], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for one in families:
        if one.accuracy is not None:
            axes.scatter(one.gflops, one.accuracy, s=one.parameters / 1e5, alpha=0.5, color="#2b6cdb", linewidths=0)
            axes.annotate(one.name, (one.gflops, one.accuracy), ha="center", fontsize=8)
    axes.set(xlabel="GFLOPs an image (area: parameters)", ylabel="test accuracy")
    axes.margins(0.2)
    axes.grid(color="#dfe2e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90, metadata={"Software": None})
