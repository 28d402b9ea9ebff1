"""A ResNet's stages as a table, read off the network that timm builds: ``python -m finetune.study.stages 50``.

Layers are counted as the paper does: convolutions on the main path and the classifier; a bottleneck has three. FLOPs
are torch's, two for a multiplication with its addition; the paper counts multiply-adds, which are half as many.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

PARTS = (
    ("conv1", "bn1", "act1"),
    ("maxpool",),
    ("layer1",),
    ("layer2",),
    ("layer3",),
    ("layer4",),
    ("global_pool", "fc"),
)
TITLES = (
    "7x7 convolution, stride 2",
    "3x3 max-pool, stride 2",
    "layer1",
    "layer2",
    "layer3",
    "layer4",
    "pool, classifier",
)


class Stage(NamedTuple):
    """One line: what it is, its blocks and widths, the size of its output, and its cost at 224 pixels."""

    title: str
    layers: int
    output: str
    parameters: int
    flops: int


def stages(depth: int) -> list[Stage]:
    """The stages of timm's ``resnet{depth}`` with 1000 classes, for one image of 224 x 224 pixels."""
    import timm
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    found: list[Stage] = []
    with torch.device("meta"), torch.no_grad():
        network = timm.create_model(f"resnet{depth}").eval()
        value = torch.zeros(1, 3, 224, 224)
        for title, names in zip(TITLES, PARTS, strict=True):
            modules = [network.get_submodule(name) for name in names]
            with FlopCounterMode(display=False) as counter:
                for module in modules:
                    value = module(value)
            layers = [
                name
                for top in modules
                for name, module in top.named_modules()
                if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
            ]
            if title.startswith("layer"):
                stage = modules[0]
                block = next(iter(stage.children()))
                widths = dict.fromkeys(part.out_channels for part in block.children() if isinstance(part, nn.Conv2d))
                title = f"{title}: {len(list(stage.children()))} blocks of {'-'.join(str(width) for width in widths)}"
            parameters = sum(parameter.numel() for module in modules for parameter in module.parameters())
            shape = "x".join(str(size) for size in value.shape[1:])
            found.append(Stage(title, len(layers), shape, parameters, counter.get_total_flops()))
    return found


def table(depth: int) -> str:
    """The stages in Markdown, with their sum."""
    rows = stages(depth)
    total = (
        "total",
        sum(row.layers for row in rows),
        "",
        sum(row.parameters for row in rows),
        sum(row.flops for row in rows),
    )
    lines = [f"| ResNet-{depth} | layers | output | parameters | GFLOPs |", "|---|---|---|---|---|"]
    for title, layers, output, parameters, flops in [*rows, total]:
        lines.append(f"| {title} | {layers} | {output} | {parameters:,} | {flops / 1e9:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print("\n\n".join(table(int(depth)) for depth in sys.argv[1:] or ["50"]))
