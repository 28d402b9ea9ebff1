"""Stages: every tensor and module in exactly one, in the order in which an image meets them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import timm
import torch

from finetune.errors import ConfigError
from finetune.network import Network
from finetune.stages import divide, select

FAMILIES = {
    "resnet": "test_resnet",
    "vit": "test_vit",
    "convnext": "test_convnext",
    "efficientnet": "test_efficientnet_gn",
    "nfnet": "test_nfnet",
    "mambaout": "test_mambaout",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_and_every_module_is_in_exactly_one_stage(
    family: str, network_of: Callable[[str], Network]
) -> None:
    network = network_of(FAMILIES[family])
    stages = divide(network)
    assert Counter(p for stage in stages for p in stage.parameters) == Counter(dict(network.named_parameters()).keys())
    assert Counter(b for stage in stages for b in stage.buffers) == Counter(dict(network.named_buffers()).keys())
    modules = Counter(m for stage in stages for m in stage.modules)
    assert max(modules.values()) == 1
    with_tensors = {n for n, m in network.named_modules() if list(m.parameters(recurse=False))}
    spanning = {""} | {n for n in with_tensors if n not in modules}
    assert spanning <= {"", "backbone"}, "a module that holds parameters and is in no stage"
    assert len({stage.name for stage in stages}) == len(stages)
    assert stages[0].name == "stem"
    assert stages[-1].name == "head"


@pytest.mark.parametrize("family", FAMILIES)
def test_stages_stand_in_the_order_of_the_forward_pass(family: str, network_of: Callable[[str], Network]) -> None:
    network = network_of(FAMILIES[family])
    stage_of = {module: number for number, stage in enumerate(divide(network)) for module in stage.modules}
    order: list[int] = []
    for name, module in network.named_modules():
        if name in stage_of and not list(module.children()) and list(module.parameters()):
            module.register_forward_hook(lambda *_, number=stage_of[name]: order.append(number))
    network.eval()(torch.zeros(1, 3, 32, 32))
    assert order == sorted(order)


def test_a_resnet50_has_the_six_stages_of_its_paper() -> None:
    network = Network(timm.create_model("resnet50", num_classes=0), torch.nn.Linear(2048, 2))
    stages = divide(network)
    assert [stage.name for stage in stages] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert len(stages[0].parameters) == 3
    # layer1: three bottlenecks of three convolutions and three norms (2 tensors each), one downsampling of both
    assert len(stages[1].parameters) == 3 * 9 + 3
    assert len(stages[1].norm_parameters) == 2 * (3 * 3 + 1)


def test_a_pattern_that_matches_nothing_lists_the_stages(network_of: Callable[[str], Network]) -> None:
    stages = divide(network_of("test_resnet"))
    for pattern in ("layer9", "@7", "@x", ""):
        with pytest.raises(ConfigError, match="stem, layer1, layer2, layer3, layer4, head"):
            select(pattern, stages)


def test_patterns_name_stages_by_name_shell_pattern_and_number(network_of: Callable[[str], Network]) -> None:
    stages = divide(network_of("test_resnet"))
    assert select("layer2", stages) == ("layer2",)
    assert select("layer*", stages) == ("layer1", "layer2", "layer3", "layer4")
    assert select("@0", stages) == ("stem",)
    assert select("@-1", stages) == ("layer4",)
    assert select("layer[34]:norm", stages) == ("layer3", "layer4")


def test_a_backbone_without_groups_is_an_error_that_says_what_to_do() -> None:
    class Bare(torch.nn.Module):
        pass

    with pytest.raises(ConfigError, match="group_matcher"):
        divide(Network(Bare(), torch.nn.Linear(2, 2)))
