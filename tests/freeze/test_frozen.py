"""Frozen means frozen: no bit moves, and a frozen network computes in training what it computes in evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from finetune.freeze.schedule import FreezeSchedule
from finetune.network import Network
from finetune.optimizer.adamw import AdamW
from finetune.optimizer.groups import parameter_groups
from finetune.stages import divide

BACKBONES = (
    "test_resnet",
    "test_vit",
    "test_convnext",
    "test_efficientnet",
    "test_efficientnet_gn",
)  # BN, LN, LN, BN, GN


def bits(network: Network) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def steps(network: Network, schedule: FreezeSchedule, epochs: range, optimizer: torch.optim.Optimizer) -> None:
    generator = torch.Generator().manual_seed(1)
    for epoch in epochs:
        network.train()
        network.freeze(schedule, epoch)
        for _ in range(2):
            images_BCHW = torch.randn(4, 3, 32, 32, generator=generator)
            F.cross_entropy(network(images_BCHW), torch.tensor([0, 1, 2, 0])).backward()
            optimizer.step()
            # gradients are deliberately not cleared: a stale one must not move what freezes next


@pytest.mark.parametrize("name", BACKBONES)
def test_a_frozen_phase_leaves_every_bit_in_place_even_after_a_phase_that_trained(
    name: str, network_of: Callable[[str], Network]
) -> None:
    network = network_of(name)
    stages = divide(network)
    phases = [{"train": ["*"], "epochs": 1}, {"train": ["head"], "epochs": 1}, {"train": ["*"]}]
    schedule = FreezeSchedule(stages, 3, phases=phases)
    optimizer = AdamW(lr=0.01, weight_decay=0.1)(parameter_groups(network, stages, 0.1, 0.8))
    start = bits(network)
    steps(network, schedule, range(1), optimizer)
    trained = bits(network)
    assert all(start[name] != trained[name] for name, _ in network.named_parameters()), "everything trains at first"
    steps(network, schedule, range(1, 2), optimizer)
    frozen = bits(network)
    moved = {name for name in frozen if frozen[name] != trained[name]}
    assert moved == {"head.weight", "head.bias"}
    steps(network, schedule, range(2, 3), optimizer)
    assert all(bits(network)[name] != frozen[name] for name, _ in network.named_parameters()), "and trains again"


@pytest.mark.parametrize("name", BACKBONES)
def test_a_frozen_backbone_computes_in_training_what_it_computes_in_evaluation(
    name: str, network_of: Callable[[str], Network]
) -> None:
    network = network_of(name)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    schedule = FreezeSchedule(divide(network), 2, phases=[{"train": ["head"]}])
    images_BCHW = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = network.eval()(images_BCHW)
        assert torch.equal(network.eval()(images_BCHW), expected)
        network.freeze(schedule, 0)
        network.train()
        assert network.training
        assert network.head.training
        assert torch.equal(network(images_BCHW), expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_norm_only_moves_the_affine_parameters_of_norms_and_the_head_and_nothing_else(
    name: str, network_of: Callable[[str], Network]
) -> None:
    network = network_of(name)
    stages = divide(network)
    optimizer = AdamW(lr=0.01)(parameter_groups(network, stages, 0.05, 1.0))
    before = bits(network)
    steps(network, FreezeSchedule(stages, 1, phases=[{"train": ["head", "*:norm"]}]), range(1), optimizer)
    moved = {name for name, value in bits(network).items() if value != before[name]}
    kinds = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.LayerNorm, torch.nn.GroupNorm)
    expected = {
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
    }
    assert moved == expected | {"head.weight", "head.bias"}


def test_frozen_statistics_stay_while_the_weights_around_them_train(network_of: Callable[[str], Network]) -> None:
    network = network_of("test_resnet")
    stages = divide(network)
    optimizer = AdamW(lr=0.01)(parameter_groups(network, stages, 0.05, 1.0))
    before = bits(network)
    steps(network, FreezeSchedule(stages, 1, phases=[{"train": ["*"], "batch_norm": "frozen"}]), range(1), optimizer)
    after = bits(network)
    assert {name for name in after if after[name] == before[name]} == {name for name, _ in network.named_buffers()}


def test_partly_frozen_batch_norm_moves_only_in_the_stages_that_train(network_of: Callable[[str], Network]) -> None:
    network = network_of("test_resnet")
    stages = divide(network)
    optimizer = AdamW(lr=0.01)(parameter_groups(network, stages, 0.05, 1.0))
    before = bits(network)
    steps(network, FreezeSchedule(stages, 1, phases=[{"train": ["head", "layer4"]}]), range(1), optimizer)
    moved = {name.split(".")[1] for name, value in bits(network).items() if value != before[name]}
    assert moved == {"layer4", "weight", "bias"}
