"""Parameter groups: every parameter once, from the first step, with the rate and decay of its stage."""

from __future__ import annotations

from collections import Counter

import pytest
import timm
import torch

from finetune.network import Network
from finetune.optimizer.groups import parameter_groups
from finetune.stages import divide


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_every_parameter_is_in_exactly_one_group_frozen_or_not(name: str) -> None:
    network = Network(timm.create_model(name, num_classes=0), torch.nn.Linear(8, 2))
    for parameter in network.backbone.parameters():
        parameter.requires_grad_(False)
    groups = parameter_groups(network, divide(network), 0.05, 0.8)
    assert Counter(id(p) for group in groups for p in group["params"]) == Counter(id(p) for p in network.parameters())
    assert len({group["name"] for group in groups}) == len(groups)


def test_the_rate_falls_by_the_layer_decay_from_stage_to_stage_below_the_head() -> None:
    network = Network(timm.create_model("test_resnet", num_classes=0), torch.nn.Linear(8, 2))
    scales = {g["name"]: g["lr_scale"] for g in parameter_groups(network, divide(network), 0.05, 0.5)}
    by_hand = {"head": 1.0, "layer4": 0.5, "layer3": 0.25, "layer2": 0.125, "layer1": 0.0625, "stem": 0.03125}
    assert scales == by_hand | {f"{name}.no_decay": scale for name, scale in by_hand.items()}


def test_norms_biases_and_what_the_backbone_lists_are_not_decayed() -> None:
    network = Network(timm.create_model("test_vit", num_classes=0), torch.nn.Linear(64, 2))
    groups = parameter_groups(network, divide(network), 0.05, 1.0)
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    for name, parameter in network.named_parameters():
        spared = parameter.ndim <= 1 or name.endswith(("bias", "pos_embed", "cls_token", "reg_token"))
        assert decay[id(parameter)] == (0.0 if spared else 0.05), name
