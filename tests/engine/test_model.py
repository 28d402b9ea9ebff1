"""What the model itself computes: L2-SP, half its strength times a squared distance, and the epoch's mean loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from finetune.freeze.schedule import FreezeSchedule
from finetune.model import ImageClassifier
from finetune.network import Network
from finetune.stages import Stage
from finetune.types import Batch

STAGES = (
    Stage("stem", ("backbone.0.weight",), (), ("backbone.0",), ()),
    Stage("layer1", ("backbone.2.weight",), (), ("backbone.2",), ()),
    Stage("head", ("head.weight",), (), ("head",), ()),
)
BATCH = Batch(torch.ones(1, 2, 1, 1), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))


class NoLoss(nn.Module):
    """Whatever is left is the pull."""

    def forward(self, logits_BK: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 0.0 * logits_BK.sum()


def classifier(l2_sp: float, train: list[str]) -> ImageClassifier:
    """A stem of [[1, 2], [3, 4]], a layer of [[5, 6], [7, 8]] and a head."""
    backbone = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2, bias=False))
    network = Network(backbone, nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        backbone[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]])[:, :, None, None])
        backbone[2].weight.copy_(torch.tensor([[5.0, 6.0], [7.0, 8.0]]))
    schedule = FreezeSchedule(STAGES, 1, phases=[{"train": train}], l2_sp=l2_sp)
    unused = cast("Any", None)
    plain = cast("Any", SimpleNamespace(normalize=lambda images_BCHW: images_BCHW))
    model = ImageClassifier(network, schedule, unused, unused, NoLoss(), None, plain, unused, {}, 0)
    network.freeze(schedule, 0)
    return model


def of_processes(model: ImageClassifier, count: int, rank: int) -> ImageClassifier:
    model._trainer = cast("Any", SimpleNamespace(world_size=count, global_rank=rank))
    return model


def move(model: ImageClassifier) -> None:
    """Half a unit in the stem, one and two in the layer, a hundred in the head."""
    with torch.no_grad():
        model.network.backbone[0].weight[0, 0] += 0.5
        model.network.backbone[2].weight[0, 1] -= 1.0
        model.network.backbone[2].weight[1, 0] += 2.0
        model.network.head.weight += 100.0


def pull(model: ImageClassifier) -> float:
    loss = model.training_step(BATCH, 0)
    assert loss is not None
    loss.backward()
    return float(loss.detach())


def test_the_pull_and_its_gradient_are_those_worked_out_by_hand() -> None:
    model = classifier(0.2, ["*"])
    assert pull(model) == 0.0, "nothing has moved"
    move(model)
    model.zero_grad()
    assert pull(model) == pytest.approx(0.5 * 0.2 * (0.5**2 + 1.0**2 + 2.0**2))  # 0.525; the head is free
    stem, layer = model.network.backbone[0].weight, model.network.backbone[2].weight
    torch.testing.assert_close(stem.grad[:, :, 0, 0], torch.tensor([[0.1, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(layer.grad, torch.tensor([[0.0, -0.2], [0.4, 0.0]]))
    assert not model.network.head.weight.grad.any()


def test_what_is_frozen_is_not_pulled() -> None:
    model = classifier(0.2, ["head", "layer1"])
    move(model)
    assert pull(model) == pytest.approx(0.5 * 0.2 * (1.0**2 + 2.0**2))


def test_a_strength_of_0_is_no_pull_and_keeps_no_copy() -> None:
    model = classifier(0.0, ["*"])
    move(model)
    assert pull(model) == 0.0
    assert model.anchor == {}


def test_a_resumed_run_is_pulled_to_where_the_first_one_began() -> None:
    model, resumed = classifier(0.2, ["*"]), classifier(0.2, ["*"])
    checkpoint: dict[str, Any] = {}
    model.on_save_checkpoint(checkpoint)
    move(model)
    resumed.load_state_dict(model.state_dict())
    resumed.anchor = {name: value + 7.0 for name, value in resumed.anchor.items()}
    of_processes(resumed, 1, 0).on_load_checkpoint(checkpoint)
    assert pull(resumed) == pytest.approx(0.525)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_mean_loss_of_two_processes_goes_on_in_any_number_of_them(count: int) -> None:
    """One process saw 4 images at 3.0, the other 2 at 1.5: 15 over 6."""
    checkpoint = {"finetune": {}, "train_loss": torch.tensor([[12.0, 4.0], [3.0, 2.0]])}
    models = [of_processes(classifier(0.0, ["*"]), count, rank) for rank in range(count)]
    for model in models:
        model.on_load_checkpoint(checkpoint)
    total, weight = (sum(getattr(model.train_loss, name) for model in models) for name in ("mean_value", "weight"))
    assert float(total / weight) == pytest.approx(2.5)
    assert float(weight) == 6.0
