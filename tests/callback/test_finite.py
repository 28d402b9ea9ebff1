"""A step that is not finite: dropped without a trace where that is allowed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import lightning
import numpy as np
import pytest
import torch

from finetune.callback.finite import FiniteNumbers
from finetune.errors import TrainingError
from finetune.types import Batch

TABLE = cast("Any", SimpleNamespace(relative=lambda row: f"cat/{row}.jpg"))
TRAINER = cast(
    "Any",
    SimpleNamespace(
        accumulate_grad_batches=1, world_size=1, global_step=4, current_epoch=1, precision_plugin=SimpleNamespace()
    ),
)


class Model(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))


def step(watch: FiniteNumbers, model: Model, inputs: torch.Tensor, rows: list[int]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = Batch(inputs, torch.zeros(len(inputs)), torch.from_numpy(np.array(rows)))
    watch.on_train_batch_start(TRAINER, model, batch, 0)
    loss = model.network(inputs).sum()
    watch.on_before_backward(TRAINER, model, loss)
    loss.backward()
    watch.on_before_optimizer_step(TRAINER, model, optimizer)
    optimizer.step()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_skipped_step_leaves_weights_and_batch_statistics_as_they_were(bad: float) -> None:
    model, watch = Model(), FiniteNumbers(TABLE, max_skipped_steps=1)
    step(watch, model, torch.randn(4, 2), [0, 1, 2, 3])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step(watch, model, torch.full((4, 2), bad), [4, 5, 6, 7])
    assert watch.skipped == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_more_than_allowed_stops_with_the_step_and_the_files() -> None:
    model, watch = Model(), FiniteNumbers(TABLE, max_skipped_steps=0)
    with pytest.raises(TrainingError, match=r"step 5 \(epoch 2\).*cat/8\.jpg, cat/9\.jpg\."):
        step(watch, model, torch.full((2, 2), float("nan")), [8, 9])
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_loss_that_is_not_finite_counts_though_its_gradient_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model, watch = Model(), FiniteNumbers(TABLE, max_skipped_steps=0)
    watch.on_train_batch_start(TRAINER, model, Batch(torch.zeros(1), torch.zeros(1), torch.tensor([3])), 0)
    watch.on_before_backward(TRAINER, model, torch.tensor(float("inf")))
    model.network[1].weight.grad = torch.zeros(1, 2)
    with pytest.raises(TrainingError, match=r"cat/3\.jpg"):
        watch.on_before_optimizer_step(TRAINER, model, torch.optim.SGD(model.parameters(), lr=0.1))
