"""Rounds weights to int8 so that a layer's output changes least, instead of each weight to its nearest step.

Weights are rounded one input after the other; the error of each is compensated by the inputs that are still to come,
as far as they are correlated on the calibration images. When to use: always with static int8, where most of the error
comes from the weights. Cost: one pass over the images and a Cholesky factorisation per layer, seconds for
EfficientNet-Lite0, a minute or two for a ResNet-50.

Source: Frantar et al., "GPTQ", 2022 (arXiv:2210.17323), here for convolutions; groups are independent problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F

_POSITIONS = 128
"""Places per image that are looked at; neighbouring patches say nearly the same."""
_DAMPING = 0.01
_BLOCK = 128
"""Inputs whose errors are handed on together: the same sums in fewer, larger multiplications."""


def round_weights(
    network: nn.Module, batches: Iterable[npt.NDArray[np.float32]], scales: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.int8]]:
    """int8 weights by name for the layers of ``network`` whose weight has a ``scale`` per output channel."""
    layers: dict[str, nn.Conv2d | nn.Linear] = {}
    for name, module in network.named_modules():
        scale = scales.get(f"{name}.weight")
        if isinstance(module, nn.Conv2d | nn.Linear) and scale is not None and scale.size == len(module.weight):
            layers[name] = module
    moments = _second_moments(network, layers, batches)
    return {
        f"{name}.weight": _rounded(layer, moments[name], torch.from_numpy(scales[f"{name}.weight"].copy()).double())
        for name, layer in layers.items()
        if name in moments
    }


@torch.no_grad()
def _second_moments(
    network: nn.Module, layers: Mapping[str, nn.Conv2d | nn.Linear], batches: Iterable[npt.NDArray[np.float32]]
) -> dict[str, Tensor]:
    """Sum of x x^T over patches x that enter each layer: groups x inputs x inputs, in double precision."""
    moments: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def observe(name: str, layer: nn.Conv2d | nn.Linear) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            patches_GDN = _patches(layer, inputs[0], generator)
            added = (patches_GDN @ patches_GDN.transpose(1, 2)).double()
            moments[name] = moments[name] + added if name in moments else added

        return layer.register_forward_pre_hook(hook)

    handles = [observe(name, layer) for name, layer in layers.items()]
    try:
        for images_BCHW in batches:
            network(torch.from_numpy(images_BCHW))
    finally:
        for handle in handles:
            handle.remove()
    return moments


def _patches(layer: nn.Conv2d | nn.Linear, entering: Tensor, generator: torch.Generator) -> Tensor:
    """What one output value is computed from, at a few random places: groups x inputs x places."""
    if isinstance(layer, nn.Linear):
        flat_DN = entering.reshape(-1, entering.shape[-1]).T
        return flat_DN[:, torch.randperm(flat_DN.shape[1], generator=generator)[:_POSITIONS]][None]
    padding = layer.padding
    if isinstance(layer, Conv2dSame):  # pads in its forward, by the size of what enters
        entering = pad_same(entering, list(layer.kernel_size), list(layer.stride), list(layer.dilation))
    if isinstance(padding, str):  # 'same' and 'valid': the amounts are torch's own bookkeeping
        entering, padding = F.pad(entering, layer._reversed_padding_repeated_twice), (0, 0)
    unfolded_BDN = F.unfold(entering, layer.kernel_size, layer.dilation, padding, layer.stride)
    places = torch.randperm(unfolded_BDN.shape[2], generator=generator)[:_POSITIONS]
    chosen_DN = unfolded_BDN[:, :, places].permute(1, 0, 2).flatten(1)
    return chosen_DN.reshape(layer.groups, -1, chosen_DN.shape[1])


@torch.no_grad()
def _rounded(layer: nn.Conv2d | nn.Linear, moments_GDD: Tensor, scale_O: Tensor) -> npt.NDArray[np.int8]:
    groups, inputs = moments_GDD.shape[:2]
    weight_GOD = layer.weight.double().reshape(groups, -1, inputs).clone()
    scale_GO = scale_O.reshape(groups, -1)
    diagonal = moments_GDD.diagonal(dim1=1, dim2=2)
    damping_G = _DAMPING * diagonal.mean(1).clamp(min=1e-12)
    damped_GDD = moments_GDD + damping_G[:, None, None] * torch.eye(inputs, dtype=torch.float64)
    inverse_GDD = torch.cholesky_inverse(torch.linalg.cholesky(damped_GDD))
    upper_GDD = torch.linalg.cholesky(inverse_GDD, upper=True)
    steps_GOD = torch.empty_like(weight_GOD)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        block_GOB = weight_GOD[:, :, start:end]
        errors_GOB = torch.empty_like(block_GOB)
        for column in range(end - start):
            value_GO = block_GOB[:, :, column]
            steps_GO = (value_GO / scale_GO).round().clamp(-127, 127)
            row_GB = upper_GDD[:, start + column, start + column : end]
            errors_GOB[:, :, column] = (value_GO - steps_GO * scale_GO) / row_GB[:, :1]
            block_GOB[:, :, column:] -= errors_GOB[:, :, column, None] * row_GB[:, None]
            steps_GOD[:, :, start + column] = steps_GO
        weight_GOD[:, :, end:] -= errors_GOB @ upper_GDD[:, start:end, end:]
    rounded: npt.NDArray[np.int8] = steps_GOD.reshape(layer.weight.shape).to(torch.int8).numpy()
    return rounded
