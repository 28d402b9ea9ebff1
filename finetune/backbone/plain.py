"""Plain networks: timm's ResNets without their shortcuts, to see what the shortcuts do.

``backbone=plain50`` (18, 34, 101) has every convolution of the ResNet of that depth but adds nothing back;
``backbone.shortcut`` puts the shortcut back (``add``: the ResNet itself) or joins it by concatenation and a 1x1
convolution (``concat``). For study, not for accuracy: they are trained from scratch. docs/resnet.md shows what happens.

The change is one module: a block computes g(branch(a) + downsample(a)), and here its downsample answers zero.
Source: He et al. 2016, Deep Residual Learning, section 4.1 (arXiv:1512.03385).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from timm.models import generate_default_cfgs, get_pretrained_cfg, register_model
from torch import Tensor, nn

from finetune.types import Backbone

Shortcut = Literal["add", "concat", "none"]


class NoShortcut(nn.Module):
    """Stands where a block's projection stands, and answers zero: g(z + 0)."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """A single zero, which adds to any shape."""
        return images_BCHW.new_zeros(())


class ConcatBlock(nn.Module):
    """g(mix([branch(a), shortcut(a)])): the two are stacked, and a 1x1 convolution brings the channels back."""

    def __init__(self, block: Any, channels: int, norm_layer: type[nn.Module]) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity() if block.downsample is None else block.downsample
        last = "act3" if hasattr(block, "act3") else "act2"
        self.act: nn.Module = getattr(block, last)
        setattr(block, last, nn.Identity())
        block.downsample = NoShortcut()
        self.branch: nn.Module = block
        join = nn.Conv2d(2 * channels, channels, 1, bias=False)
        nn.init.kaiming_normal_(join.weight, mode="fan_out", nonlinearity="relu")
        self.mix = nn.Sequential(join, norm_layer(channels))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Same shape as the block that it wraps."""
        stacked: Tensor = torch.cat([self.branch(images_BCHW), self.shortcut(images_BCHW)], dim=1)
        output: Tensor = self.act(self.mix(stacked))
        return output


def set_shortcut(network: nn.Module, shortcut: Shortcut, norm_layer: type[nn.Module]) -> None:
    """Change how every block of a timm ResNet joins its shortcut; ``add`` leaves it as it is."""
    if shortcut == "add":
        return
    for name in ("layer1", "layer2", "layer3", "layer4"):
        stage: Any = getattr(network, name)
        for index, block in enumerate(stage):
            if shortcut == "none":
                block.downsample = NoShortcut()
            else:
                channels = (block.conv3 if hasattr(block, "conv3") else block.conv2).out_channels
                stage[index] = ConcatBlock(block, channels, norm_layer)


def initialise_as_paper(network: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852): normal weights of variance 2 / fan_in, every BatchNorm scale 1."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)


def create_backbone(
    image_size: int,
    *,
    name: str = "plain50",
    weights: str = "none",
    shortcut: Literal["add", "concat", "none"] = "none",
    batch_norm: bool = True,
    initialisation: Literal["timm", "paper"] = "timm",
) -> Backbone:
    """As ``timm_model.create_backbone``, for the networks of this file."""
    from finetune.backbone import timm_model
    from finetune.backbone.weights import find_weights
    from finetune.errors import ConfigError

    if name not in default_cfgs:
        raise ConfigError(f"backbone.name={name}: backbone.shortcut can change {', '.join(NAMES)} only")
    source = find_weights(name, weights)
    options = {"shortcut": shortcut, "batch_norm": batch_norm, "initialisation": initialisation}
    module = timm_model.build(name, image_size, source, num_classes=0, **options)
    num_features = timm_model.measure_features(module, name, image_size)
    preprocessing = timm_model.preprocessing_of(module, source, image_size)
    return Backbone(module, num_features, preprocessing, source.description)


def _plain(
    residual: str,
    *,
    shortcut: Shortcut = "none",
    batch_norm: bool = True,
    initialisation: Literal["timm", "paper"] = "timm",
    **options: Any,
) -> nn.Module:
    import timm

    for key in ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        options.pop(key, None)
    norm_layer: type[nn.Module] = nn.BatchNorm2d if batch_norm else nn.Identity
    # timm starts each branch at zero, which needs a shortcut: without one nothing would reach the next block
    zero_init_last = shortcut == "add" and initialisation == "timm"
    network: nn.Module = timm.create_model(residual, zero_init_last=zero_init_last, norm_layer=norm_layer, **options)
    set_shortcut(network, shortcut, norm_layer)
    if initialisation == "paper":
        initialise_as_paper(network)
    return network


NAMES = ("plain18", "plain34", "plain50", "plain101")


def _configuration(residual: str) -> dict[str, Any]:
    """The ResNet's own settings without its weights: nobody has trained a plain one for us."""
    config = get_pretrained_cfg(residual)
    assert config is not None
    without = {"url", "hf_hub_id", "hf_hub_filename", "architecture", "tag", "license", "origin_url", "paper_ids"}
    return {key: value for key, value in config.to_dict().items() if key not in without}


default_cfgs = generate_default_cfgs({name: _configuration(name.replace("plain", "resnet")) for name in NAMES})


@register_model
def plain18(**options: Any) -> nn.Module:
    """ResNet-18 without shortcuts."""
    return _plain("resnet18", **options)


@register_model
def plain34(**options: Any) -> nn.Module:
    """ResNet-34 without shortcuts."""
    return _plain("resnet34", **options)


@register_model
def plain50(**options: Any) -> nn.Module:
    """ResNet-50 without shortcuts."""
    return _plain("resnet50", **options)


@register_model
def plain101(**options: Any) -> nn.Module:
    """ResNet-101 without shortcuts."""
    return _plain("resnet101", **options)
