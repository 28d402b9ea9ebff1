"""What every freeze schedule promises: a head that trains, phases without a gap, and stages that stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from finetune import build
from finetune.freeze.schedule import FreezeSchedule
from finetune.network import Network

CONF = Path(__file__).resolve().parents[2] / "conf" / "freeze"
EPOCHS = 10


class Tiny(nn.Module):
    """Three stages with normalisation, as a backbone gives them."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("stem", "layer1", "layer2"):
            self.add_module(name, nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()))

    def group_matcher(self, *, coarse: bool = False) -> dict[str, str]:
        """As timm's."""
        return {"stem": r"^stem", "blocks": r"^layer(\d+)"}

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Features B D."""
        return self.layer2(self.layer1(self.stem(images_BCHW))).mean((2, 3))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(Tiny(), nn.Linear(3, 2))


@pytest.fixture
def schedule(freeze: str, network: Network) -> FreezeSchedule:
    """As training builds it; ``auto`` for pretrained weights."""
    _, node = build.resolve_freeze(OmegaConf.load(CONF / f"{freeze}.yaml"), pretrained=True)
    return build.schedule(node, network, EPOCHS, solve_head=False)


def test_phases_cover_the_run_without_gap_or_overlap(schedule):
    assert [sum(epoch in phase for phase in schedule.phases) for epoch in range(EPOCHS)] == [1] * EPOCHS
    assert schedule.phases[0].start == 0
    assert schedule.phases[-1].end == EPOCHS


def test_the_head_trains_in_every_epoch(schedule):
    for epoch in range(EPOCHS):
        assert {"head.weight", "head.bias"} <= schedule.trainable(epoch)


def test_the_rate_stays_positive_and_no_higher_than_asked(schedule):
    factors = [schedule.lr_factor(progress / 7 + 0.01) for progress in range(7 * EPOCHS - 1)]
    assert all(0 < factor <= 1 for factor in factors)


def test_frozen_parameters_and_statistics_stay_byte_for_byte_and_the_others_move(schedule, network):
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for epoch in range(EPOCHS):
        network.train()
        network.freeze(schedule, epoch)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(torch.randn(8, 3, 6, 6)), torch.arange(8) % 2).backward()
        optimizer.step()
        trained = schedule.trainable(epoch)
        frozen = [name for name, _ in network.named_parameters() if name not in trained]
        for name in frozen:
            assert torch.equal(network.state_dict()[name], before[name]), (epoch, name)
        assert any(not torch.equal(network.state_dict()[name], before[name]) for name in trained), epoch
        for module in schedule.frozen_modules(epoch):
            assert not network.get_submodule(module).training, (epoch, module)


def test_an_epoch_s_stages_do_not_depend_on_the_epochs_before(schedule, network):
    network.freeze(schedule, EPOCHS - 1)
    directly = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    for epoch in range(EPOCHS):
        network.freeze(schedule, epoch)
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == directly
