"""Depthwise convolutions in float32 beside a network that computes in bfloat16, on a CPU.

oneDNN has fast bfloat16 kernels for ordinary convolutions, forward and backward, but not for the backward pass of those
with one small filter a channel (MobileNet, EfficientNet). They are few of the multiplications and much of the time: in
bfloat16 throughout, a training step of EfficientNet-Lite0 or MobileNetV3 takes 1.5 to 2.2 times as long as with the two
mixed (one and two cores with AMX, 128 and 224 px; ``python -m bench depthwise``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_LARGEST_PX = 5
"""Side of the filters that gain. ConvNeXt's of 7 gain a tenth on one thread and lose a fifth on two."""


class Float32Depthwise(TorchFunctionMode):
    """While it is entered, depthwise convolutions leave CPU autocast; everything else stays as it is."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """``func(*args, **kwargs)``; of a depthwise convolution as ``nn.Conv2d`` calls it (all by position) in float32."""
        if func is torch.conv2d and torch.is_autocast_enabled("cpu") and _is_depthwise(*args):
            with torch.autocast("cpu", enabled=False):
                return func(args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


def _is_depthwise(*args: Any) -> bool:
    """Whether input B C H W, weight O C/groups h w, ..., groups are of small filters for each single channel."""
    if len(args) != 7 or args[0].device.type != "cpu":
        return False
    return bool(1 < args[6] == args[0].shape[1] and max(args[1].shape[2:]) <= _LARGEST_PX)
