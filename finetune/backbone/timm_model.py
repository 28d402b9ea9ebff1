"""Any timm network as a feature extractor, with the preprocessing that belongs to its weights.

``backbone=resnet50`` is the default, ``backbone.name=ANY_TIMM_MODEL`` takes another; ``timm.list_models()`` has over a
thousand names. Building costs about as long as drawing the weights (0.3 s for a ResNet-50) and one forward pass of one
image, which measures the number of features instead of trusting a field that families fill in differently.

Source: Wightman, PyTorch Image Models (github.com/huggingface/pytorch-image-models).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from finetune.backbone.weights import Source, find_weights, load_weights
from finetune.errors import ConfigError, FinetuneError
from finetune.preprocessing import Preprocessing
from finetune.ranges import ShareBelowOne
from finetune.types import Backbone


def create_backbone(
    image_size: int,
    *,
    name: str = "resnet50",
    weights: str = "pretrained",
    drop_rate: ShareBelowOne = 0.0,
    drop_path_rate: ShareBelowOne = 0.0,
) -> Backbone:
    """Build ``name`` without its classifier for square images of ``image_size`` pixels, weights loaded.

    Raises:
        ConfigError: timm does not know the name, or the network cannot take this size or these rates.
        WeightsError: the weights are not there or belong to another network.
    """
    check_name(name)
    source = find_weights(name, weights)
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    module = build(name, image_size, source, num_classes=0, **{key: rate for key, rate in rates.items() if rate})
    num_features = measure_features(module, name, image_size)
    return Backbone(module, num_features, preprocessing_of(module, source, image_size), source.description)


def check_name(name: str) -> None:
    """Raise ``ConfigError`` with the nearest names unless timm, or this package, has a network of this name."""
    import timm

    from finetune.backbone import known, registry  # noqa: F401 - importing registry registers our networks with timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ConfigError(known.name_problem(name))
    tags = [full.partition(".")[2] for full in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        has = f"has the weights {', '.join(tags)}" if tags else "has no pretrained weights"
        raise ConfigError(f"backbone.name={name} asks for the weights {tag!r}; {architecture} {has}")


def build(name: str, image_size: int, source: Source, *, num_classes: int, **options: Any) -> nn.Module:
    """The timm network with the weights of ``source``; ``num_classes=0`` leaves the classifier out."""
    import timm
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:  # a ViT's position embedding is made for one size
        options["img_size"] = image_size
    try:
        module: nn.Module = timm.create_model(name, num_classes=num_classes, **source.create, **options)
    except FinetuneError:
        raise
    except Exception as error:
        refused = next((key for key in ("drop_path_rate", "drop_rate") if key in str(error)), None)
        if refused is not None:
            raise ConfigError(
                f"backbone.{refused}={options[refused]}: {name} has no such option; leave backbone.{refused} at 0"
            ) from error
        if source.create:
            raise source.failed(error) from error
        raise _unfit(name, image_size, error) from error
    if source.state_dict is not None:
        load_weights(module, source, name)
    return module


def measure_features(module: nn.Module, name: str, image_size: int) -> int:
    """Length of the feature vector, found by sending one blank image through the network in eval mode."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            features_BD = module(torch.zeros(1, 3, image_size, image_size))
    except Exception as error:
        raise _unfit(name, image_size, error) from error
    module.train(was_training)
    if not isinstance(features_BD, torch.Tensor) or features_BD.ndim != 2:
        raise ConfigError(f"backbone.name={name} gives no single feature vector per image, so no head can stand on it")
    return int(features_BD.shape[1])


def preprocessing_of(module: nn.Module, source: Source, image_size: int) -> Preprocessing:
    """What the weights were trained with, at ``image_size``: the source's record first, then timm's configuration."""
    size = (image_size, image_size)
    if source.preprocessing is not None:
        return replace(source.preprocessing, size=size)
    config: dict[str, Any] = dict(getattr(module, "pretrained_cfg", {}))
    standard = Preprocessing()
    mode = config.get("crop_mode") or "center"
    return Preprocessing(
        size=size,
        crop_pct=config.get("crop_pct") or standard.crop_pct,
        # timm's "border" pads images smaller than the crop; resizing the short side first leaves none to pad
        crop_mode="squash" if mode == "squash" else "center",
        interpolation=config.get("interpolation") or standard.interpolation,
        mean=tuple(config.get("mean") or standard.mean),
        std=tuple(config.get("std") or standard.std),
    )


def _unfit(name: str, image_size: int, error: Exception) -> ConfigError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConfigError(
        f"backbone.name={name} cannot take images of data.image_size={image_size}: {reason}; "
        "try the size it was made for (224 for most) or another multiple of 32"
    )
