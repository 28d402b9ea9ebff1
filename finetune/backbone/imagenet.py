"""A pretrained network with its own thousand classes: what it knows before it is trained on anything of ours.

``predict`` uses it when no checkpoint is given. Class names are WordNet's, through timm's ImageNetInfo.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from finetune.backbone.timm_model import build, check_name, preprocessing_of
from finetune.backbone.weights import find_weights
from finetune.errors import ConfigError, WeightsError
from finetune.preprocessing import Preprocessing


class PretrainedClassifier(NamedTuple):
    """``module`` maps normalised images B C H W to logits B K over ``classes``."""

    module: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    weights: str


def create_classifier(image_size: int, *, name: str, weights: str) -> PretrainedClassifier:
    """The whole network ``name`` in eval mode, with the names of the classes that its weights were trained on."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
    from timm.models import get_pretrained_cfg

    if weights == "none":
        raise ConfigError(
            "backbone.weights=none: an untrained network has no classes to predict; "
            "say ckpt=FILE with a trained checkpoint, or backbone.weights=pretrained"
        )
    check_name(name)
    source = find_weights(name, weights)
    config = get_pretrained_cfg(name)
    num_classes = config.num_classes if config is not None else 1000
    module = build(name, image_size, source, num_classes=num_classes)
    subset = infer_imagenet_subset(module)
    if subset is None or num_classes == 0:
        raise WeightsError(
            f"backbone.name={name} has no class names that timm knows ({num_classes} classes); "
            "say ckpt=FILE with a trained checkpoint, or take a network trained on ImageNet (backbone=resnet50)"
        )
    info = ImageNetInfo(subset)
    names = tuple(info.index_to_description(index).split(",")[0] for index in range(num_classes))
    return PretrainedClassifier(module.eval(), names, preprocessing_of(module, source, image_size), source.description)
