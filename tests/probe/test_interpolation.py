"""The line from the probe to the fine-tuned network: its ends, its middle and its statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finetune.interpolation import between, place, statistics_moved


def normed(seed: int, shift: float) -> nn.Sequential:
    """A layer and a batch normalisation that has seen data around ``shift``."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=None), nn.Linear(3, 2))
    network.train()
    for _ in range(3):
        network(torch.randn(64, 4) + shift)
    return network.eval()


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_the_ends_are_the_two_networks_to_the_last_bit() -> None:
    probe, tuned = state(normed(0, 0.0)), state(normed(1, 2.0))
    for coefficient, end in ((0.0, probe), (1.0, tuned)):
        found = between(probe, tuned, coefficient)
        assert all(torch.equal(found[name], end[name]) for name in end)


def test_a_quarter_of_the_way_is_a_quarter_of_the_difference() -> None:
    probe, tuned = {"w": torch.tensor([1.0, 4.0])}, {"w": torch.tensor([3.0, 0.0])}
    assert between(probe, tuned, 0.25)["w"].tolist() == [1.5, 3.0]


def test_statistics_in_between_are_those_of_the_images_not_the_mean_of_two_networks() -> None:
    probe, tuned = state(normed(0, 0.0)), state(normed(1, 2.0))
    images = [torch.randn(64, 4) + 1 for _ in range(4)]
    network = normed(0, 0.0)
    place(network, probe, tuned, 0.5, iter(images))
    inputs = torch.cat([network[0](batch) for batch in images])
    assert statistics_moved(probe, tuned)
    assert network[1].running_mean.tolist() == pytest.approx(inputs.mean(dim=0).tolist(), abs=1e-5)
    mixed = between(probe, tuned, 0.5)["1.running_mean"]
    assert (network[1].running_mean - mixed).abs().max() > 0.05
    assert not network.training


def test_frozen_statistics_are_left_alone_and_no_image_is_read() -> None:
    probe = state(normed(0, 0.0))
    tuned = {name: value + 1 if name == "0.weight" else value for name, value in probe.items()}
    network = normed(0, 0.0)
    place(network, probe, tuned, 0.5, (pytest.fail("an image was read") for _ in range(1)))
    assert torch.equal(network[1].running_mean, probe["1.running_mean"])
