"""What every backbone promises: features of the stated length, preprocessing of the asked size, stages to freeze."""

from __future__ import annotations

import torch

from finetune.head.linear import LinearHead
from finetune.network import Network
from finetune.stages import divide


def test_a_backbone_gives_features_of_the_stated_length(backbone, part):
    name = {"name": "test_resnet"} if backbone == "timm" else {}
    built = part("backbone", backbone, 64, weights="none", **name)
    assert built.preprocessing.size == (64, 64)
    assert built.weights == ""
    with torch.no_grad():
        assert built.module.eval()(torch.randn(2, 3, 64, 64)).shape == (2, built.num_features)
    assert all(parameter.requires_grad for parameter in built.module.parameters())
    stages = [stage.name for stage in divide(Network(built.module, LinearHead(built.num_features, 2)))]
    assert stages[0] == "stem"
    assert stages[-1] == "head"
    assert len(stages) >= 4
