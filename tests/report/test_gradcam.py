"""Grad-CAM points at what decides: by construction, by training, and not before training."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from finetune.network import Network
from finetune.report.gradcam import gradcam, spatial_layer


class Brightness(nn.Module):
    """A backbone whose features are the mean brightness of red and of green: its map is the picture itself."""

    def __init__(self, *, pooled_only: bool = False) -> None:
        super().__init__()
        self.shrink = nn.AvgPool2d(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.pooled_only = pooled_only

    def forward(self, images_BCHW: Tensor) -> Tensor:
        seen_BCHW = images_BCHW if self.pooled_only else self.shrink(images_BCHW)
        return self.pool(seen_BCHW[:, :2]).flatten(1)


def brightness_network(*, pooled_only: bool = False) -> Network:
    head = nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    return Network(Brightness(pooled_only=pooled_only), head)


def test_the_map_is_where_the_evidence_for_the_asked_class_is() -> None:
    image_BCHW = torch.zeros(1, 3, 64, 64)
    image_BCHW[:, 0, :16, :16] = 1.0  # red, class 0, top left
    image_BCHW[:, 1, 48:, 48:] = 1.0  # green, class 1, bottom right
    network = brightness_network()
    red_HW, green_HW = gradcam(network, image_BCHW.repeat(2, 1, 1, 1), [0, 1])
    assert red_HW[:24, :24].sum() / red_HW.sum() > 0.95
    assert green_HW[40:, 40:].sum() / green_HW.sum() > 0.95
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_without_a_spatial_map_gets_none() -> None:
    assert gradcam(brightness_network(pooled_only=True), torch.zeros(1, 3, 64, 64), [0]) is None


@pytest.mark.parametrize(
    ("name", "size_px", "layer"),
    [
        ("test_resnet", 64, "layer4"),
        ("test_efficientnet", 64, "bn2"),
        ("test_vit", 160, "blocks.5.norm1"),
        ("test_mambaout", 64, None),
        ("swin_tiny_patch4_window7_224", 224, "norm"),
    ],
)
def test_the_last_spatial_layer_of_each_family_is_found(name: str, size_px: int, layer: str | None) -> None:
    small = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)} if name.startswith("swin") else {}
    backbone = timm.create_model(name, num_classes=0, **small).eval()
    images_BCHW = torch.rand(2, 3, size_px, size_px)
    network = Network(backbone, nn.Linear(backbone(images_BCHW).shape[1], 3)).eval()
    found = spatial_layer(network, images_BCHW[:1])
    assert found is not None
    if layer is not None:
        assert found.module is backbone.get_submodule(layer)
    maps_BHW = gradcam(network, images_BCHW, [0, 2])
    assert maps_BHW is not None
    assert maps_BHW.shape == (2, size_px, size_px)
    assert 0.0 <= maps_BHW.min() <= maps_BHW.max() <= 1.0


def four_patches(num_images: int, seed: int, size_px: int = 128) -> tuple[Tensor, Tensor]:
    """A red or green patch in every quadrant; only the one at the bottom right is the class."""
    generator = torch.Generator().manual_seed(seed)
    images_BCHW = torch.rand(num_images, 3, size_px, size_px, generator=generator) * 0.4 + 0.2
    colours = torch.randint(0, 2, (num_images, 4), generator=generator)
    half, side = size_px // 2, size_px // 4
    for image in range(num_images):
        for quadrant, (top, left) in enumerate(((0, 0), (0, half), (half, 0), (half, half))):
            rows = slice(top + side // 2, top + side // 2 + side)
            columns = slice(left + side // 2, left + side // 2 + side)
            images_BCHW[image, :, rows, columns] = 0.1
            images_BCHW[image, int(colours[image, quadrant]), rows, columns] = 0.9
    return (images_BCHW - 0.45) / 0.25, colours[:, 3]


def corner_mass(network: Network, images_BCHW: Tensor, targets_B: Tensor) -> float:
    """Mean share of a map in the bottom right quarter; an empty map is spread evenly."""
    maps_BHW = gradcam(network, images_BCHW, targets_B.tolist())
    assert maps_BHW is not None
    half = maps_BHW.shape[1] // 2
    total_B = maps_BHW.sum(axis=(1, 2))
    share_B = maps_BHW[:, half:, half:].sum(axis=(1, 2)) / np.maximum(total_B, 1e-9)
    return float(np.where(total_B > 0, share_B, 0.25).mean())


@pytest.mark.slow
def test_maps_of_a_trained_network_lie_in_the_corner_that_decides_and_an_untrained_ones_do_not() -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=0)
    network = Network(backbone, nn.Linear(backbone.num_features, 2))
    images_BCHW, targets_B = four_patches(32, seed=9999)
    untrained = corner_mass(network.eval(), images_BCHW, targets_B)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(60):
        network.train()
        batch_BCHW, batch_B = four_patches(24, seed=step)
        loss = nn.functional.cross_entropy(network(batch_BCHW), batch_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = corner_mass(network.eval(), images_BCHW, targets_B)
    print(f"share of the map in the deciding quarter: untrained {untrained:.2f}, trained {trained:.2f}")
    assert (network(images_BCHW).argmax(1) == targets_B).float().mean() > 0.95
    assert untrained < 0.35
    assert trained > 0.65
