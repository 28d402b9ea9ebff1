"""The frozen part of a network as a fast function, and the rest of it as a network that begins there.

``Trunk`` runs as inference: BatchNorm folded into convolutions, channels-last, bfloat16 where the run trains in it, no
autograd. ``rest_of`` is the backbone with its lower stages replaced by the identity; it shares its parameters with the
network, so training it trains the network. Networks that do not run their stages one after another (a ViT adds its
position embedding at the root) cannot be cut like that: ``difference`` finds out on one batch, and the run computes
live.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from finetune.errors import FinetuneError
from finetune.exporter.fold import fold_batchnorm
from finetune.preprocessing import Preprocessing
from finetune.stages import Stage

_PREFIX = "backbone."
_PIECE = 8
"""Images in one forward pass: within 3% of the speed of 16 (ResNet-50, 224 px, one core), and less memory at the peak."""


class _ReachedError(Exception):
    """The forward pass has come to the boundary; carries the activation."""

    def __init__(self, activation: Tensor) -> None:
        super().__init__()
        self.activation = activation


class Trunk:
    """uint8 images to the activation that enters the first stage above ``boundary`` (pooled features at the top).

    Args:
        backbone: copied; the original is untouched.
        stages: all stages of the network, the head last.
        boundary: how many stages are below; ``len(stages) - 1`` is the whole backbone.
        preprocessing: normalises the images.
    """

    def __init__(
        self, backbone: nn.Module, stages: tuple[Stage, ...], boundary: int, preprocessing: Preprocessing
    ) -> None:
        self.preprocessing = preprocessing
        self.dtype = torch.float32
        self.is_whole = boundary == len(stages) - 1
        self._pads = False
        module = _folded(backbone, preprocessing).to(memory_format=torch.channels_last)
        if not self.is_whole:
            entrance = stages[boundary].modules[0].removeprefix(_PREFIX)
            module.get_submodule(entrance).register_forward_pre_hook(_reached)
        self.module: nn.Module = module

    def in_dtype(self, dtype: torch.dtype) -> Trunk:
        """A copy that computes in ``dtype`` (float32 or bfloat16) and gives activations of it."""
        twin = copy.copy(self)
        twin.dtype = dtype
        twin.module = copy.deepcopy(self.module).to(dtype)
        return twin

    def compiled(self, images_BCHW: Tensor) -> Trunk:
        """A twin built by ``torch.compile`` for pieces of one size, on ``images_BCHW``; of whole backbones only."""
        from torch._inductor import config as inductor  # seconds to import

        assert self.is_whole, "the exception that ends a part of a backbone cannot be compiled"
        twin = copy.copy(self)
        twin._pads = True
        twin.module = torch.compile(self.module, dynamic=False)  # type: ignore[assignment]
        with inductor.patch(freezing=True):  # as an option of torch.compile it changes nothing
            twin(images_BCHW[:_PIECE])
        return twin

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """uint8 images of ``preprocessing.size`` to activations, batch first, in ``dtype``."""
        with torch.inference_mode(), _exact(images_BCHW):
            pieces = [self._piece(piece_BCHW) for piece_BCHW in images_BCHW.split(_PIECE)]
        return torch.cat(pieces)  # out here: a head cannot be trained on inference tensors

    def _piece(self, images_BCHW: Tensor) -> Tensor:
        count = len(images_BCHW)
        if self._pads and count < _PIECE:
            images_BCHW = torch.cat([images_BCHW, images_BCHW[-1:].expand(_PIECE - count, -1, -1, -1)])
        inputs = self.preprocessing.normalize(images_BCHW).to(self.dtype)
        try:
            activation: Tensor = self.module(inputs)
        except _ReachedError as reached:
            activation = reached.activation
        return activation[:count].contiguous()


def rest_of(backbone: nn.Module, stages: tuple[Stage, ...], boundary: int) -> nn.Module:
    """The backbone from ``boundary`` on, sharing parameters, buffers and modes with the original."""
    rest = _without_children(backbone)
    below = {name.removeprefix(_PREFIX) for stage in stages[:boundary] for name in stage.modules}
    for name in sorted(below):
        path = name.split(".")
        if ".".join(path[:-1]) in below:
            continue  # its parent goes as a whole
        parent = rest
        for step in path[:-1]:
            child = parent.get_submodule(step)
            if not getattr(child, "_copied_for_rest", False):
                child = _without_children(child)
                parent._modules[step] = child
            parent = child
        parent._modules[path[-1]] = nn.Identity()
    return rest


def plain_features(backbone: nn.Module, preprocessing: Preprocessing, images_BCHW: Tensor) -> Tensor:
    """What the plain backbone makes of uint8 images in float32 and eval mode; its modes are left as they were."""
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        with torch.no_grad(), _exact(images_BCHW):
            features_BD: Tensor = backbone(preprocessing.normalize(images_BCHW))
            return features_BD
    finally:
        for module, mode in modes.items():
            module.training = mode


def difference(expected_BD: Tensor, trunk: Trunk, rest: nn.Module | None, images_BCHW: Tensor) -> float:
    """How far trunk and rest together are from the plain backbone's features of these uint8 images.

    Root mean square of the difference over that of the features; infinite when the two do not fit together at all.
    """
    modes = {} if rest is None else {module: module.training for module in rest.modules()}
    try:
        with torch.no_grad(), _exact(images_BCHW):
            activation = trunk(images_BCHW).float()
            got_BD = activation if rest is None else rest.eval()(activation)
    except (RuntimeError, ValueError, TypeError, IndexError):  # the network is no chain of stages
        return math.inf
    finally:
        for module, mode in modes.items():
            module.training = mode
    return apart(got_BD, expected_BD)


def apart(got_BD: Tensor, expected_BD: Tensor) -> float:
    """Root mean square of the difference over that of what was expected; infinite for another shape."""
    if got_BD.shape != expected_BD.shape:
        return math.inf
    return float((got_BD - expected_BD).square().mean().sqrt() / expected_BD.square().mean().sqrt())


@contextmanager
def _exact(images_BCHW: Tensor) -> Iterator[None]:
    """Float32 means float32: no autocast, and no TF32 in a GPU's convolutions, as in ``evaluate`` and ``predict``."""
    whole = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
    with torch.autocast(images_BCHW.device.type, enabled=False), whole:
        yield


def _folded(backbone: nn.Module, preprocessing: Preprocessing) -> nn.Module:
    """A copy with BatchNorm folded; the plain copy where folding does not apply to this network."""
    device = next(backbone.parameters()).device
    generator = torch.Generator().manual_seed(0)
    probe_BCHW = torch.rand(1, 3, *preprocessing.size, generator=generator).to(device)
    try:
        module = fold_batchnorm(backbone, probe_BCHW).network
    except FinetuneError:
        module = copy.deepcopy(backbone).eval()
    return module.requires_grad_(requires_grad=False)


def _without_children(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin._copied_for_rest = True  # type: ignore[assignment]
    return twin


def _reached(_: nn.Module, inputs: tuple[Any, ...]) -> NoReturn:
    raise _ReachedError(inputs[0])
