"""The trunk through ``torch.compile`` (inductor with frozen weights), where that repays the time it takes.

Compiling a ResNet-50 takes half a minute once on a machine and some seconds from then on; on a CPU the folded trunk runs
1.6 times as fast in float32 and 1.1 times in bfloat16 (docs/speed.md). So some thousand images pay for it and fewer do
not. ``cache.compile=auto`` decides by a rule of counts, not of clocks, so that a run is repeated by its repetition: the
work that is left, over the layers that would be compiled. A compiled trunk is held against the plain one on real images
before it is used; where there is no C++ compiler, or compiling fails, the plain one goes on.

Source: the PyTorch documentation of ``torch.compile`` and of inductor's ``freezing``.
"""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor, nn

from finetune.cache.trunk import Trunk, apart

log = logging.getLogger(__name__)
Compile = bool | Literal["auto"]
GFLOP_A_LAYER = {torch.float32: 190.0, torch.bfloat16: 1700.0}
"""Work on one layer that repays its compilation on a CPU: of a ResNet-50 at 224 px (8.2 GFLOP, 53 layers), 1,200 images
in float32 and 11,000 in bfloat16.
"""
_COMPILED = (nn.Conv2d, nn.Linear)
_BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Relative differences that reordered and fused sums explain; measured 1e-6 in float32."""


def fast_trunk(trunk: Trunk, images_BCHW: Tensor, num_images: int, mode: Compile) -> Trunk:
    """``trunk``, or its compiled twin where ``num_images`` repay it or ``mode`` is true; ``images_BCHW`` are examples."""
    if mode is False or not trunk.is_whole:
        return trunk
    if mode == "auto":
        needed = repaid_by(trunk, images_BCHW[:1])
        if images_BCHW.device.type != "cpu" or num_images < needed:
            log.info("compile   no: %d images to compute, some %d would repay it (cache.compile)", num_images, needed)
            return trunk
    return _checked_twin(trunk, images_BCHW)


def repaid_by(trunk: Trunk, image_1CHW: Tensor) -> int:
    """How many such images repay the compilation, by the rule of this module."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        trunk(image_1CHW)
    layers = sum(isinstance(module, _COMPILED) for module in trunk.module.modules())
    images = float(GFLOP_A_LAYER[trunk.dtype] * layers * 1e9 / max(counter.get_total_flops(), 1))
    return max(1, round(images))


def _checked_twin(trunk: Trunk, images_BCHW: Tensor) -> Trunk:
    try:
        twin = trunk.compiled(images_BCHW)
        difference = apart(twin(images_BCHW).float(), trunk(images_BCHW).float())
    except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and none of them is the user's concern
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        log.warning("compile   failed, goes on without (%s: %s)", type(error).__name__, reason[:200])
        return trunk
    if not difference <= _BOUNDS[trunk.dtype]:
        log.warning("compile   given up: it changes the features by %.2g", difference)
        return trunk
    log.info("compile   yes: features within %.1g of the plain trunk's", difference)
    return twin
