"""What every optimizer promises: it learns, keeps its groups, leaves frozen parameters alone, and continues exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from finetune.network import Network
from finetune.optimizer.groups import parameter_groups
from finetune.stages import divide


class Tiny(nn.Sequential):
    """Two stages, as a backbone gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.layer1 = nn.Sequential(nn.LayerNorm(8), nn.Tanh())

    def group_matcher(self, *, coarse: bool = False) -> dict[str, str]:
        """As timm's."""
        return {"stem": r"^stem", "blocks": r"^layer(\d+)"}


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(Tiny(), nn.Linear(8, 3))


@pytest.fixture
def build(optimizer, part):
    """``build(network)`` gives the optimizer of the YAML over the network's own groups."""

    def over(network: Network) -> torch.optim.Optimizer:
        configured = part("optimizer", optimizer)
        groups = parameter_groups(network, divide(network), configured.weight_decay, configured.layer_decay)
        return configured(groups)

    return over


def step(network: Network, optimizer: torch.optim.Optimizer, number: int) -> float:
    generator = torch.Generator().manual_seed(number)
    targets_B = torch.randint(3, (32,), generator=generator)
    inputs_BD = torch.randn(32, 6, generator=generator) * 0.3 + torch.eye(3, 6)[targets_B] * 2
    optimizer.zero_grad(set_to_none=True)
    loss = F.cross_entropy(network(inputs_BD), targets_B)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def test_it_learns_at_its_own_rate(network, build):
    optimizer = build(network)
    losses = [step(network, optimizer, number) for number in range(150)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_every_parameter_is_in_one_named_group_and_norms_and_biases_are_not_decayed(network, build):
    optimizer = build(network)
    listed = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in network.parameters())
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed = {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {"backbone.stem.weight", "head.weight"}


def test_a_parameter_without_a_gradient_stays_as_it_is(network, build):
    optimizer = build(network)
    for number in range(3):
        step(network, optimizer, number)
    network.backbone.requires_grad_(requires_grad=False)
    before = copy.deepcopy(network.backbone.state_dict())
    for number in range(3):
        step(network, optimizer, number)
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


def test_a_saved_state_continues_bit_for_bit(network, build):
    optimizer = build(network)
    for number in range(4):
        step(network, optimizer, number)
    other = copy.deepcopy(network)
    resumed = build(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(4, 8):
        step(network, optimizer, number)
        step(other, resumed, number)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
