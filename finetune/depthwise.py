"""Depthwise convolutions in float32 beside a network that computes in bfloat16, on a CPU.

oneDNN has fast bfloat16 kernels for ordinary convolutions, forward and backward, but not for the backward pass of those
with one filter a channel (MobileNet, EfficientNet, ConvNeXt). They are few of the multiplications and much of the time: in
bfloat16 throughout, a training step of EfficientNet-Lite0 takes 1.5 (224 px) to 2.2 times (128 px) as long as with the two
mixed, of MobileNetV3 1.7 to 2.0 times, of ConvNeXt-Atto 1.1 times (one core with AMX; ``python -m bench depthwise``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


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
    """Whether input B C H W, weight O C/groups h w, ..., groups are of one filter or more for each single channel."""
    return len(args) == 7 and args[0].device.type == "cpu" and 1 < args[6] == args[0].shape[1]
