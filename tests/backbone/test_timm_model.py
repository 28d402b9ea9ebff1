"""Any family gives one measured feature vector; mistakes are named in the user's words before anything is trained."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.data import resolve_data_config

from finetune.backbone.timm_model import create_backbone
from finetune.errors import ConfigError

FAMILIES = (
    "resnet18",
    "test_efficientnet",
    "test_convnext",
    "test_vit",
    "mobilenetv3_small_050",
    "regnetx_002",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_have_the_measured_length_in_every_family(name):
    backbone = create_backbone(64, name=name, weights="none")
    with torch.no_grad():
        features_BD = backbone.module.eval()(torch.randn(2, 3, 64, 64))
    assert features_BD.shape == (2, backbone.num_features)


def test_vgg_and_mobilenet_do_not_state_the_length_that_they_give():
    """Why the length is measured: the field of the same name holds another number."""
    for name in ("vgg11", "mobilenetv3_small_050"):
        backbone = create_backbone(64, name=name, weights="none")
        assert backbone.num_features != backbone.module.num_features


@pytest.mark.parametrize("name", ["resnet50", "vit_tiny_patch16_224", "convnext_atto", "resnet50.tv_in1k"])
def test_preprocessing_is_what_timm_resolves_for_the_weights(name):
    backbone = create_backbone(96, name=name, weights="none")
    with torch.device("meta"):
        expected = resolve_data_config({}, model=timm.create_model(name))
    made = backbone.preprocessing
    assert made.size == (96, 96)
    assert (made.mean, made.std) == (tuple(expected["mean"]), tuple(expected["std"]))
    assert (made.interpolation, made.crop_pct) == (expected["interpolation"], expected["crop_pct"])
    assert made.crop_mode == expected["crop_mode"]


def test_a_vision_transformer_is_built_for_the_asked_size():
    backbone = create_backbone(64, name="vit_tiny_patch16_224", weights="none")
    assert backbone.module.pos_embed.shape[1] == (64 // 16) ** 2 + 1


def test_rates_reach_the_network():
    backbone = create_backbone(64, name="test_resnet", weights="none", drop_path_rate=0.3)
    assert any("DropPath" in type(module).__name__ for module in backbone.module.modules())


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    with pytest.raises(ConfigError) as error:
        create_backbone(64, name="resnet5O", weights="none")
    assert str(error.value).startswith(
        "backbone.name=resnet5O is not a network that timm knows; did you mean resnet50, "
    )


def test_an_unknown_tag_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"asks for the weights 'a9_in1k'; resnet18 has the weights a1_in1k, "):
        create_backbone(64, name="resnet18.a9_in1k", weights="none")


def test_a_rate_that_the_network_does_not_have_is_refused():
    with pytest.raises(ConfigError) as error:
        create_backbone(64, name="vgg11", weights="none", drop_path_rate=0.1)
    assert str(error.value) == (
        "backbone.drop_path_rate=0.1: vgg11 has no such option; leave backbone.drop_path_rate at 0"
    )


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(
        ConfigError, match=r"backbone\.name=crossvit_tiny_240 cannot take images of data\.image_size=96"
    ):
        create_backbone(96, name="crossvit_tiny_240", weights="none")
