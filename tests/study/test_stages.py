"""The table of stages against the network itself, counted by other means, and against the paper."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from finetune.study.families import cost
from finetune.study.stages import stages, table

PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
PAPER_GIGA_MULTIPLY_ADDS = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}


@pytest.mark.parametrize("depth", PARAMETERS)
def test_stages_add_up_to_the_network_and_to_the_paper(depth):
    rows = stages(depth)
    assert sum(row.layers for row in rows) == depth
    assert sum(row.parameters for row in rows) == PARAMETERS[depth]
    with torch.device("meta"):
        own = timm.create_model(f"resnet{depth}")
    assert sum(parameter.numel() for parameter in own.parameters()) == PARAMETERS[depth]
    # timm strides in the 3x3 convolution where the paper strides in the 1x1: up to a tenth more
    ratio = sum(row.flops for row in rows) / 2e9 / PAPER_GIGA_MULTIPLY_ADDS[depth]
    assert 0.98 < ratio < 1.1


def test_flops_are_those_of_every_convolution_worked_out_by_hand():
    counted = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        per_output = module.in_features if isinstance(module, nn.Linear) else module.weight[0].numel()
        counted += 2 * per_output * output.numel()

    with torch.device("meta"), torch.no_grad():
        network = timm.create_model("resnet50").eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(count)
        network(torch.zeros(1, 3, 224, 224))
    assert sum(row.flops for row in stages(50)) == counted
    assert cost("resnet50", 224).flops == counted - 2 * 2048 * 1000  # a backbone has no classifier


def test_resnet_50_is_three_four_six_three_bottlenecks_of_the_published_widths():
    lines = table(50).splitlines()
    expected = ("3 blocks of 64-256 | 9 | 256x56x56", "4 blocks of 128-512 | 12 | 512x28x28")
    expected += ("6 blocks of 256-1024 | 18 | 1024x14x14", "3 blocks of 512-2048 | 9 | 2048x7x7")
    for number, words in enumerate(expected, start=1):
        assert f"| layer{number}: {words} |" in lines[3 + number]
    assert lines[2].startswith("| 7x7 convolution, stride 2 | 1 | 64x112x112 |")
    assert "25,557,032" in lines[-1]
