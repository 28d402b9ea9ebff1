"""A feature is met again exactly by those who would compute the same one; trunk and rest make up the whole network."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.cache import keys
from finetune.cache.features import FeatureCache, FeatureReuse, ImageSource
from finetune.cache.keys import PLAIN
from finetune.cache.trunk import Trunk, difference, plain_features, rest_of
from finetune.freeze.schedule import FreezeSchedule
from finetune.head.linear import LinearHead
from finetune.network import Network
from finetune.preprocessing import Preprocessing
from finetune.stages import divide

PREPROCESSING = Preprocessing(size=(32, 32))


def network_of(name: str = "test_resnet", seed: int = 0, **options: Any) -> Network:
    torch.manual_seed(seed)
    backbone = timm.create_model(name, num_classes=0, **options)
    for normalisation in backbone.modules():
        if isinstance(normalisation, torch.nn.BatchNorm2d):  # as after training
            normalisation.running_mean.normal_(std=0.1)
            normalisation.running_var.uniform_(0.5, 1.5)
    return Network(backbone, LinearHead(backbone.num_features, 3)).eval()


NETWORK = network_of()


def key_for(change: dict[str, Any]) -> str:
    """The key of a fixed run's features with one thing changed."""
    network = NETWORK
    if "weight" in change:
        network = network_of()
        name, place = change["weight"]
        tensors = dict(network.backbone.named_parameters()) | dict(network.backbone.named_buffers())
        tensors = {key: value for key, value in tensors.items() if value.is_floating_point()}
        with torch.no_grad():
            flat = tensors[sorted(tensors)[name % len(tensors)]].view(-1)
            flat[place % len(flat)] += 0.25
    preprocessing = dataclasses.replace(PREPROCESSING, **change.get("preprocessing", {}))
    schedule = FreezeSchedule(divide(network), 2, phases=[{"train": change.get("train", ["head"])}])
    identity = {
        "backbone": {"name": "test_resnet", "drop_rate": change.get("drop_rate", 0.0)},
        "transform": {"flip": change.get("flip", 0.5)},
        "seed": change.get("seed", 1),
    }
    source = ImageSource(None, None, None)  # type: ignore[arg-type]
    reuse = FeatureReuse(
        FeatureCache(),
        network,
        schedule,
        preprocessing,
        source,
        identity,
        change.get("dtype", torch.float32),
        augments=False,
    )
    boundary = reuse.boundary(0)
    assert boundary is not None
    return reuse.key(boundary, change.get("view", 0), reuse.dtype)


sizes = st.tuples(st.integers(8, 512), st.integers(8, 512)).filter(lambda size: size != PREPROCESSING.size)
triples = st.tuples(*[st.floats(0.01, 1.0)] * 3)
CHANGES = st.one_of(
    st.fixed_dictionaries({"weight": st.tuples(st.integers(0, 10_000), st.integers(0, 10_000_000))}),
    st.fixed_dictionaries({"preprocessing": st.fixed_dictionaries({"size": sizes})}),
    st.fixed_dictionaries({"preprocessing": st.fixed_dictionaries({"mean": triples})}),
    st.fixed_dictionaries({"preprocessing": st.fixed_dictionaries({"std": triples})}),
    st.fixed_dictionaries({"preprocessing": st.fixed_dictionaries({"crop_pct": st.floats(0.3, 0.8)})}),
    st.fixed_dictionaries(
        {"preprocessing": st.fixed_dictionaries({"interpolation": st.sampled_from(["bilinear", "nearest"])})}
    ),
    st.fixed_dictionaries({"preprocessing": st.fixed_dictionaries({"background": st.just((0, 0, 0))})}),
    st.fixed_dictionaries({"flip": st.floats(0.0, 0.4)}),
    st.fixed_dictionaries({"seed": st.integers(2, 10**9)}),
    st.fixed_dictionaries({"view": st.integers(1, 100) | st.just(PLAIN)}),
    st.fixed_dictionaries({"drop_rate": st.floats(0.1, 0.9)}),
    st.fixed_dictionaries({"train": st.sampled_from([["head", "@-1"], ["head", "@-2", "@-1"]])}),
    st.fixed_dictionaries({"dtype": st.just(torch.bfloat16)}),
)


@settings(max_examples=80, deadline=None)
@given(change=CHANGES)
def test_a_changed_weight_preprocessing_size_transform_seed_view_or_boundary_never_meets_the_old_features(
    change: dict[str, Any],
) -> None:
    assert key_for(change) != key_for({})


@pytest.mark.parametrize("change", [{"seed": 2}, {"flip": 0.1}, {"seed": 7, "flip": 0.9}])
def test_the_plain_view_is_shared_by_runs_that_differ_in_seed_and_augmentation(change: dict[str, Any]) -> None:
    assert key_for({"view": PLAIN, **change}) == key_for({"view": PLAIN})


def test_another_version_of_what_decodes_or_computes_has_features_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_for({})
    monkeypatch.setattr(keys.importlib.metadata, "version", lambda package: f"another {package}")
    assert key_for({}) != before


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "resnet18"])
def test_trunk_and_rest_equal_the_network_at_every_boundary_or_say_that_they_cannot(name: str) -> None:
    options = {"img_size": 32} if "vit" in name else {}
    network = network_of(name, **options)
    stages = divide(network)
    images_BCHW = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    entered = 0
    for below in range(1, len(stages)):
        trunk = Trunk(network.backbone, stages, below, PREPROCESSING)
        rest = None if below == len(stages) - 1 else rest_of(network.backbone, stages, below)
        apart = difference(plain_features(network.backbone, PREPROCESSING, images_BCHW), trunk, rest, images_BCHW)
        assert apart < 1e-5 or apart > 1e-2, "nothing in between, where a wrong network could pass"
        entered += apart < 1e-5
    assert entered >= (1 if "vit" in name else 3)


def test_training_the_rest_trains_the_network() -> None:
    network = network_of()
    stages = divide(network)
    below = len(stages) - 2
    rest = rest_of(network.backbone, stages, below)
    names = set(stages[below].parameters)
    shared = {id(parameter) for name, parameter in network.named_parameters() if name in names}
    assert {id(parameter) for parameter in rest.parameters()} == shared
