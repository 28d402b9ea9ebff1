"""Weights rounded for the layer's output: on the int8 grid, and closer to the float layer than nearest rounding."""

import numpy as np
import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from finetune.exporter.int8_rounding import round_weights

LAYERS = {
    "dense": lambda: nn.Conv2d(6, 5, 3, padding=1),
    "strided": lambda: nn.Conv2d(6, 5, 3, stride=2, padding=1),
    "same": lambda: nn.Conv2d(6, 5, 3, padding="same"),
    "padded as in TensorFlow": lambda: Conv2dSame(6, 5, 5, stride=2),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "grouped": lambda: nn.Conv2d(6, 4, 1, groups=2),
}


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_output_of_a_rounded_layer_is_nearer_than_with_nearest_rounding(kind: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    network = nn.Sequential(layer)
    # smooth pictures: neighbours agree, so errors of their weights can cancel
    images_BCHW = nn.functional.interpolate(torch.rand(24, 6, 5, 5), size=16, mode="bilinear")
    # steps as coarse as those of 5 bits, so that the difference between the two roundings is far from noise
    scale_O = layer.weight.detach().abs().amax((1, 2, 3)) / 15
    steps = round_weights(network, [images_BCHW[:16].numpy()], {"0.weight": scale_O.numpy()})["0.weight"]
    assert steps.dtype == np.int8
    assert steps.shape == tuple(layer.weight.shape)

    def error(weight_steps: torch.Tensor) -> float:
        rounded = nn.Sequential(layer)
        expected = rounded(images_BCHW[16:])
        kept = layer.weight.data
        layer.weight.data = weight_steps * scale_O[:, None, None, None]
        got = rounded(images_BCHW[16:])
        layer.weight.data = kept
        return float((got - expected).square().mean())

    with torch.no_grad():
        nearest = (layer.weight / scale_O[:, None, None, None]).round()
        assert error(torch.from_numpy(steps).float()) < 0.9 * error(nearest)


def test_padding_inside_the_forward_counts_like_padding_of_the_layer() -> None:
    """A kernel larger than the map, as in EfficientNet-Lite0 at 64 px; around it five by five pads two a side."""
    torch.manual_seed(0)
    plain, inside = nn.Conv2d(4, 4, 5, padding=2), Conv2dSame(4, 4, 5)
    inside.load_state_dict(plain.state_dict())
    scale_O = plain.weight.detach().abs().amax((1, 2, 3)).numpy() / 15
    images = [torch.rand(8, 4, 2, 2).numpy()]
    plain_steps, inside_steps = (
        round_weights(nn.Sequential(layer), images, {"0.weight": scale_O})["0.weight"] for layer in (plain, inside)
    )
    np.testing.assert_array_equal(plain_steps, inside_steps)


def test_layer_without_a_scale_is_left_out() -> None:
    assert round_weights(nn.Sequential(nn.Linear(4, 2)), [np.ones((1, 4), dtype=np.float32)], {}) == {}
