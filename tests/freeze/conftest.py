"""Small networks of every kind of normalisation, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch

from finetune.network import Network


@pytest.fixture
def network_of() -> Callable[[str], Network]:
    """``network_of("test_vit")``: a network with three classes."""

    def build(name: str) -> Network:
        torch.manual_seed(0)
        size = {"img_size": 32} if "vit" in name else {}
        backbone = timm.create_model(name, num_classes=0, **size)
        return Network(backbone, torch.nn.Linear(backbone.head_hidden_size, 3))

    return build
