"""Our ResNet against timm's, with the same weights; and the block's equation."""

from __future__ import annotations

import ast
import inspect

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from finetune.backbone import resnet_from_scratch
from finetune.backbone.resnet_from_scratch import BLOCKS, BasicBlock, Bottleneck, ResNet
from finetune.backbone.timm_model import create_backbone


@pytest.mark.parametrize("depth", BLOCKS)
def test_outputs_equal_timm_s_with_the_same_weights(depth):
    torch.manual_seed(depth)
    theirs = timm.create_model(f"resnet{depth}", zero_init_last=False).eval()
    for module in theirs.modules():  # statistics and scales that could be swapped unnoticed at their starting values
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.0)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.9, 1.4)
    ours = ResNet(depth).eval()
    ours.load_state_dict(theirs.state_dict())
    images_BCHW = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected_BK, given_BK = theirs(images_BCHW), ours(images_BCHW)
    assert (given_BK - expected_BK).abs().max() <= 1e-5 * max(1.0, expected_BK.abs().max())


def test_a_resnet_50_has_the_published_number_of_parameters():
    assert sum(parameter.numel() for parameter in ResNet(50).parameters()) == 25_557_032


@pytest.mark.parametrize("block", [BasicBlock(16, 16, 1), Bottleneck(64, 16, 1)])
def test_with_a_zeroed_branch_a_block_hands_on_g_of_its_input_exactly(block):
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    nn.init.zeros_(last.weight)
    a_BCHW = torch.randn(2, 16 if isinstance(block, BasicBlock) else 64, 8, 8)
    assert torch.equal(block(a_BCHW), F.relu(a_BCHW))


def test_with_every_branch_zeroed_timm_s_stages_hand_on_their_shortcut_exactly():
    """The same of the network that training uses: layer1 of a ResNet-18 has no projection, so its output is g(a)."""
    network = create_backbone(64, name="resnet18", weights="none").module  # timm starts each branch at zero
    a_BCHW = torch.randn(2, 64, 16, 16)
    assert torch.equal(network.layer1(a_BCHW), F.relu(a_BCHW))
    scratch = ResNet(18)
    for module in scratch.modules():
        if isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
    assert torch.equal(scratch.layer1(a_BCHW), F.relu(a_BCHW))


def test_the_lesson_stays_short_and_needs_nothing_but_torch():
    source = inspect.getsource(resnet_from_scratch)
    assert len(source.splitlines()) < 120
    imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "torch", "torch.nn"}


def test_it_is_a_backbone_like_any_other():
    backbone = create_backbone(64, name="resnet18_from_scratch", weights="none")
    assert backbone.num_features == 512
    assert backbone.preprocessing == create_backbone(64, name="resnet18", weights="none").preprocessing


def test_weights_of_timm_s_network_load_into_it_from_a_file(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "timm.pth")
    ours, theirs = (
        create_backbone(64, name=name, weights=str(tmp_path / "timm.pth")).module.eval()
        for name in ("resnet18_from_scratch", "resnet18")
    )
    images_BCHW = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images_BCHW), theirs(images_BCHW), atol=1e-5, rtol=1e-5)
