"""Folds every BatchNorm into the convolution before it, so that inference computes one operation instead of two.

In eval mode a BatchNorm is a fixed scale and shift per channel, which the weights and the bias of the convolution can
carry. When to use: on a model that will never be trained again; the exporters call it on a copy. Cost: one forward pass
to see which normalisation reads which convolution, and one to check the result. Which pairs belong together is
observed, not guessed from names, so that timm's BatchNormAct2d and any order of registration work.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2017, section 3.2; the arithmetic is ``torch.nn.utils.fusion.fuse_conv_bn_eval``.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from finetune.errors import ExportError

TOLERANCE = 1e-3
"""Relative to the largest output; folding reorders float32 sums and nothing else, measured 1e-6 to 1e-5."""


class Folded(NamedTuple):
    """``network``: a copy in eval mode; ``folded`` of ``total`` BatchNorms are gone."""

    network: nn.Module
    folded: int
    total: int


def fold_batchnorm(network: nn.Module, images_BCHW: Tensor) -> Folded:
    """A copy of ``network`` whose BatchNorms are folded where a convolution alone feeds them; checked on the images."""
    folded = copy.deepcopy(network).eval()
    with torch.no_grad():
        expected_BK = folded(images_BCHW)
        pairs = _pairs(folded, images_BCHW)
        for convolution, batchnorm in pairs:
            before, after = folded.get_submodule(convolution), folded.get_submodule(batchnorm)
            assert isinstance(before, nn.Conv2d)
            assert isinstance(after, nn.BatchNorm2d)
            fused = fuse_conv_bn_eval(before, after)
            folded.set_submodule(convolution, fused)
            folded.set_submodule(batchnorm, _remainder(after))
        got_BK = folded(images_BCHW)
    largest = float((got_BK - expected_BK).abs().max())
    if not largest <= TOLERANCE * max(1.0, float(expected_BK.abs().max())):
        raise ExportError(
            f"folding {len(pairs)} BatchNorms changed the network's output by {largest:.2g} (expected under "
            f"{TOLERANCE:g}); this backbone uses a convolution's output twice. Say exporter.fold_batchnorm=false"
        )
    total = sum(isinstance(module, _BatchNorm) for module in network.modules())
    return Folded(folded, len(pairs), total)


def _pairs(network: nn.Module, images_BCHW: Tensor) -> list[tuple[str, str]]:
    """(convolution, batchnorm) by name, where the second reads exactly what the first wrote and each ran once."""
    writer: dict[int, str] = {}
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []
    alive: list[Tensor] = []  # an id is unique only while its object lives

    def observe(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            if isinstance(module, nn.Conv2d):
                writer[id(output)] = name
                alive.append(output)
            elif id(inputs[0]) in writer:
                pairs.append((writer[id(inputs[0])], name))

        return module.register_forward_hook(hook)

    seen = [
        observe(name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and getattr(module, "track_running_stats", True)
    ]
    try:
        network(images_BCHW)
    finally:
        for handle in seen:
            handle.remove()
    readers = Counter(convolution for convolution, _ in pairs)
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == readers[pair[0]] == 1]


def _remainder(batchnorm: nn.Module) -> nn.Module:
    """What is left of a normalisation: nothing, or the activation that timm's BatchNormAct2d carries."""
    act, drop = getattr(batchnorm, "act", None), getattr(batchnorm, "drop", None)
    parts = [part for part in (drop, act) if isinstance(part, nn.Module) and not isinstance(part, nn.Identity)]
    return nn.Sequential(*parts) if parts else nn.Identity()
