"""What the network looked at: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) by the grad-cam package.

Works for any backbone with a spatial map: the last module whose output still has places is found by running an image
through, be it convolutional (B C H W), Swin-like (B H W C) or transformer tokens (B N C). Costs a forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.errors import ConfigError


class SpatialLayer(NamedTuple):
    """The last layer with places, and how its output becomes B C H W."""

    module: nn.Module
    to_BCHW: Callable[[Tensor], Tensor] | None


def gradcam(network: nn.Module, images_BCHW: Tensor, class_numbers: Sequence[int]) -> npt.NDArray[np.float32] | None:
    """One map B H W in [0, 1] per normalised image for the given class; None where the network has no spatial map.

    Raises:
        ConfigError: grad-cam is not installed.
    """
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise ConfigError("Grad-CAM needs a package: pip install 'finetune[report]'") from error
    layer = spatial_layer(network, images_BCHW[:1])
    if layer is None:
        return None
    targets = [ClassifierOutputTarget(number) for number in class_numbers]
    # the gradient is asked for at this layer: below it nothing goes backwards
    cut = layer.module.register_forward_hook(lambda _, __, output: output.detach().requires_grad_())
    try:
        with GradCAM(network, [layer.module], reshape_transform=layer.to_BCHW) as cam, torch.enable_grad():
            maps_BHW: npt.NDArray[np.float32] = cam(images_BCHW.clone(), targets)
    finally:
        cut.remove()
    network.zero_grad(set_to_none=True)
    return np.nan_to_num(maps_BHW)


def spatial_layer(network: nn.Module, image_BCHW: Tensor) -> SpatialLayer | None:
    """The module of ``network.backbone`` that finishes last among those whose output has at least 2 x 2 places."""
    backbone = getattr(network, "backbone", network)
    channels_last = str(getattr(backbone, "output_fmt", "NCHW")) == "NHWC"
    prefix = int(getattr(backbone, "num_prefix_tokens", 0))
    found: list[SpatialLayer] = []

    def watch(module: nn.Module, _: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or module is backbone:
            return
        if output.ndim == 4 and min(output.shape[1:3] if channels_last else output.shape[2:]) >= 2:
            found.append(SpatialLayer(module, _from_channels_last if channels_last else None))
        elif output.ndim == 3 and _is_grid(output.shape[1] - prefix) and not _is_attention_output(module):
            found.append(SpatialLayer(module, lambda tokens_BNC: _from_tokens(tokens_BNC, prefix)))

    handles = [module.register_forward_hook(watch) for module in backbone.modules()]
    try:
        with torch.no_grad():
            network(image_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return _before_pooling(found)


def _before_pooling(found: list[SpatialLayer]) -> SpatialLayer | None:
    """Of a transformer the last block's norm1: after the last attention only the class token has a gradient."""
    if not found or found[-1].to_BCHW in (None, _from_channels_last):
        return found[-1] if found else None
    norms = [layer for layer in found if isinstance(layer.module, nn.LayerNorm)]
    # ... block: norm1, norm2; then the final norm: the third from the end is the last block's norm1
    return norms[-3] if len(norms) >= 3 else found[-1]


def _is_grid(num_tokens: int) -> bool:
    return num_tokens >= 4 and math.isqrt(num_tokens) ** 2 == num_tokens


def _is_attention_output(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Dropout | nn.Identity)


def _from_channels_last(output_BHWC: Tensor) -> Tensor:
    return output_BHWC.permute(0, 3, 1, 2)


def _from_tokens(tokens_BNC: Tensor, prefix: int) -> Tensor:
    places_BNC = tokens_BNC[:, prefix:]
    side = math.isqrt(places_BNC.shape[1])
    return places_BNC.transpose(1, 2).reshape(places_BNC.shape[0], -1, side, side)
