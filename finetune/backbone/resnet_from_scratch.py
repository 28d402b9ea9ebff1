"""A residual network written out plainly, to be read. ``backbone=resnet50_from_scratch`` runs it in every command.

A block does not learn what its output should be, but what to add to its input:

    a[l+2] = g(z[l+2] + a[l])

where z[l+2] is what its convolutions make of a[l], and g is ReLU. If z is zero the block hands on what it got; a deep
network is therefore at least as easy to train as a shallow one. Names and shapes are timm's, so its weights fit, and a
test holds the outputs of all five depths against it to 1e-5.

Source: He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition (arXiv:1512.03385).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Blocks in each of the four stages. 50 = 1 (stem) + 3 x (3 + 4 + 6 + 3) + 1 (classifier).
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, for the networks of 18 and 34 layers."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(in_channels, width, stride)

    def forward(self, a_BCHW: Tensor) -> Tensor:
        """``g(z + a)``."""
        z_BCHW = F.relu(self.bn1(self.conv1(a_BCHW)))
        z_BCHW = self.bn2(self.conv2(z_BCHW))
        return F.relu(z_BCHW + shortcut(self, a_BCHW))


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3 among them, 1x1 to four times as many: deep and wide at the cost of a basic block."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = projection(in_channels, 4 * width, stride)

    def forward(self, a_BCHW: Tensor) -> Tensor:
        """``g(z + a)``."""
        z_BCHW = F.relu(self.bn1(self.conv1(a_BCHW)))
        z_BCHW = F.relu(self.bn2(self.conv2(z_BCHW)))
        z_BCHW = self.bn3(self.conv3(z_BCHW))
        return F.relu(z_BCHW + shortcut(self, a_BCHW))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """A 1x1 convolution where input and output differ in shape; elsewhere the shortcut is the input itself."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def shortcut(block: BasicBlock | Bottleneck, a_BCHW: Tensor) -> Tensor:
    """a[l], in the shape of the block's output."""
    return a_BCHW if block.downsample is None else block.downsample(a_BCHW)


class ResNet(nn.Module):
    """Stem, four stages that halve the image and double the channels, average pool, classifier."""

    def __init__(self, depth: int, num_classes: int = 1000) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else Bottleneck
        self.num_classes = num_classes
        self.num_features = 512 * block.expansion
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for number, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS[depth], strict=True), start=1):
            stage = nn.Sequential()
            for index in range(blocks):
                stage.append(block(channels, width, stride=2 if index == 0 and number > 1 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        for module in self.modules():  # He et al. 2015 (arXiv:1502.01852): keep the variance through ReLUs
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Normalised images to logits B K; to features B D when ``num_classes`` is 0."""
        a_BCHW = self.maxpool(F.relu(self.bn1(self.conv1(images_BCHW))))
        for number in (1, 2, 3, 4):
            a_BCHW = self.get_submodule(f"layer{number}")(a_BCHW)
        features_BD = torch.mean(a_BCHW, dim=(2, 3))
        logits_BK: Tensor = self.fc(features_BD)
        return logits_BK

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: FBT001, FBT002 - timm's signature
        """Which tensors form a stage, as timm's networks say it: what freeze schedules go by."""
        return {"stem": r"^conv1|bn1|maxpool", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}
