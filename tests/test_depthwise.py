"""Depthwise convolutions beside bfloat16: which layers leave it, and that the numbers are float32's there."""

from __future__ import annotations

import torch
from torch import nn

from finetune.depthwise import Float32Depthwise


def outputs(module: nn.Module, image_BCHW: torch.Tensor, *, guarded: bool) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        if not guarded:
            return module(image_BCHW)
        with Float32Depthwise():
            return module(image_BCHW)


def test_only_a_depthwise_convolution_leaves_bfloat16() -> None:
    image_BCHW = torch.randn(2, 8, 6, 6)
    for groups, out, expected in (
        (8, 8, torch.float32),
        (8, 16, torch.float32),
        (4, 8, torch.bfloat16),
        (1, 8, torch.bfloat16),
    ):
        layer = nn.Conv2d(8, out, 3, groups=groups)
        assert outputs(layer, image_BCHW, guarded=True).dtype == expected, groups
        assert outputs(layer, image_BCHW, guarded=False).dtype == torch.bfloat16
    assert outputs(nn.Conv2d(8, 8, 7, padding=3, groups=8), image_BCHW, guarded=True).dtype == torch.bfloat16
    assert outputs(nn.Linear(6, 3), image_BCHW, guarded=True).dtype == torch.bfloat16


def test_its_output_and_gradients_are_those_of_float32() -> None:
    torch.manual_seed(0)
    image_BCHW, layer = torch.randn(2, 8, 6, 6), nn.Conv2d(8, 8, 3, padding=1, groups=8)
    plain_BCHW = layer(image_BCHW)
    plain_BCHW.square().sum().backward()
    assert layer.weight.grad is not None
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16), Float32Depthwise():
        got_BCHW = layer(image_BCHW)
    got_BCHW.square().sum().backward()
    assert torch.equal(got_BCHW, plain_BCHW)
    assert torch.equal(layer.weight.grad, expected)


def test_without_autocast_nothing_changes() -> None:
    image_BCHW, layer = torch.randn(1, 4, 5, 5, dtype=torch.float64), nn.Conv2d(4, 4, 3, groups=4).double()
    with Float32Depthwise():
        assert torch.equal(layer(image_BCHW), nn.functional.conv2d(image_BCHW, layer.weight, layer.bias, groups=4))
