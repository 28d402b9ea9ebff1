"""The networks of this package, registered with timm, so that ``backbone.name`` and every command take them.

Importing this module registers ``resnetN_from_scratch``, which timm's weights fit, and by ``plain.py`` the ``plainN``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import generate_default_cfgs, get_pretrained_cfg, register_model
from timm.models._builder import build_model_with_cfg
from torch import nn

from finetune.backbone import plain
from finetune.backbone.resnet_from_scratch import BLOCKS, ResNet

FROM_SCRATCH = tuple(f"resnet{depth}_from_scratch" for depth in BLOCKS)
OWN = (*plain.NAMES, *FROM_SCRATCH)


def _configuration(depth: int) -> dict[str, Any]:
    """Settings of timm for the same network, weights included."""
    config = get_pretrained_cfg(f"resnet{depth}")
    assert config is not None
    return {key: value for key, value in config.to_dict().items() if key not in {"architecture", "tag"}}


def _entry_point(name: str, depth: int) -> Callable[..., nn.Module]:
    def construct(num_classes: int = 1000, in_chans: int = 3) -> ResNet:
        if in_chans != 3:
            raise ValueError(f"{name} takes colour images of 3 channels, not {in_chans}")
        return ResNet(depth, num_classes)

    def create(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: FBT001, FBT002 - timm's signature
        module: nn.Module = build_model_with_cfg(construct, name, pretrained, **options)
        return module

    create.__name__ = name
    return create


default_cfgs = generate_default_cfgs(
    {name: _configuration(depth) for name, depth in zip(FROM_SCRATCH, BLOCKS, strict=True)}
)
for _name, _depth in zip(FROM_SCRATCH, BLOCKS, strict=True):
    register_model(_entry_point(_name, _depth))
