"""Plain networks differ from residual ones by the shortcut and by nothing else."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from finetune.backbone.plain import create_backbone
from finetune.backbone.registry import OWN
from finetune.backbone.timm_model import create_backbone as create_any
from finetune.errors import ConfigError


def copy_convolutions(source: nn.Module, target: nn.Module) -> None:
    """Everything but the projections, which plain networks do not have."""
    state = {name: value for name, value in source.state_dict().items() if "downsample" not in name}
    missing = target.load_state_dict(state, strict=False).missing_keys
    assert not missing


@pytest.mark.parametrize(("depth", "block"), [(18, "basic"), (50, "bottleneck")])
def test_a_plain_network_is_the_resnet_s_convolutions_in_a_row(depth, block):
    torch.manual_seed(0)
    residual = timm.create_model(f"resnet{depth}", num_classes=0, zero_init_last=False).eval()
    plain = create_backbone(64, name=f"plain{depth}").module.eval()
    copy_convolutions(residual, plain)
    a_BCHW = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        given_BD = plain(a_BCHW)
        a_BCHW = residual.maxpool(residual.act1(residual.bn1(residual.conv1(a_BCHW))))
        for stage in (residual.layer1, residual.layer2, residual.layer3, residual.layer4):
            for one in stage:
                a_BCHW = F.relu(one.bn1(one.conv1(a_BCHW)))
                a_BCHW = F.relu(one.bn2(one.conv2(a_BCHW)))
                if block == "bottleneck":
                    a_BCHW = F.relu(one.bn3(one.conv3(a_BCHW)))
    torch.testing.assert_close(given_BD, a_BCHW.mean(dim=(2, 3)))


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_it_has_the_resnet_s_parameters_less_its_projections(depth):
    residual = timm.create_model(f"resnet{depth}", num_classes=0)
    expected = sum(p.numel() for name, p in residual.named_parameters() if "downsample" not in name)
    assert sum(p.numel() for p in create_backbone(64, name=f"plain{depth}").module.parameters()) == expected


def test_adding_the_shortcut_gives_the_residual_network_back():
    torch.manual_seed(0)
    ours = create_backbone(64, name="plain18", shortcut="add").module
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=0)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_concatenation_mixes_branch_and_input_in_halves_of_one_convolution():
    torch.manual_seed(0)
    block = create_backbone(64, name="plain18", shortcut="concat").module.layer1[0].eval()
    a_BCHW = torch.randn(2, 64, 8, 8)
    weight = block.mix[0].weight
    z_BCHW = block.branch(a_BCHW)
    by_hand = F.conv2d(z_BCHW, weight[:, :64]) + F.conv2d(a_BCHW, weight[:, 64:])
    torch.testing.assert_close(block(a_BCHW), F.relu(block.mix[1](by_hand)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shortcut", ["add", "concat", "none"])
def test_without_batch_norm_nothing_is_normalised(shortcut):
    module = create_backbone(64, name="plain18", shortcut=shortcut, batch_norm=False).module
    assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    assert torch.isfinite(module(torch.randn(2, 3, 64, 64))).all()


def test_the_initialisations_are_those_of_their_papers():
    torch.manual_seed(0)
    for initialisation, fan in (("paper", "in"), ("timm", "out")):
        module = create_backbone(64, name="plain50", shortcut="add", initialisation=initialisation).module
        convolution = module.layer4[0].conv1  # 1x1, 1024 to 512
        expected = (2 / (1024 if fan == "in" else 512)) ** 0.5
        assert convolution.weight.std().item() == pytest.approx(expected, rel=0.01)
        scale = module.layer4[0].bn3.weight
        assert torch.equal(scale, torch.ones_like(scale) * (initialisation == "paper"))


def test_a_plain_network_passes_a_signal_from_the_start():
    """Starting the last BatchNorm of a branch at zero, as timm does, would silence a network without shortcuts."""
    features_BD = create_backbone(64, name="plain50").module(torch.randn(4, 3, 64, 64))
    assert features_BD.std() > 0.01


def test_timm_knows_our_networks_by_name():
    assert all(timm.is_model(name) for name in OWN)
    assert create_any(64, name="plain18", weights="none").num_features == 512


def test_a_network_of_another_family_has_no_shortcut_to_change():
    with pytest.raises(
        ConfigError,
        match=r"backbone\.name=resnet50: backbone\.shortcut can change plain18, plain34, plain50, plain101 only",
    ):
        create_backbone(64, name="resnet50")
