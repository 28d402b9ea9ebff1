"""The moving average against a loop over plain numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import lightning
import torch

from finetune.callback.ema import EMA


class Model(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Linear(1, 1, bias=False)


def run(average: EMA, model: Model, trainer: Any, weights: list[float]) -> list[float]:
    found = []
    for weight in weights:
        model.network.weight.data.fill_(weight)
        trainer.global_step += 1
        average.on_train_batch_end(trainer, model)
        found.append(float(average.averages["network.weight"]))
    return found


def test_the_average_is_the_one_worked_by_hand_and_survives_a_checkpoint() -> None:
    model, trainer = Model(), cast("Any", SimpleNamespace(global_step=0))
    model.network.weight.data.fill_(1.0)
    average = EMA(decay=0.3)
    average.on_fit_start(trainer, model)
    expected, mean = [], 1.0
    for step, weight in enumerate([2.0, -1.0, 5.0, 4.0], start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weight
        expected.append(mean)
    found = run(average, model, trainer, [2.0, -1.0])
    resumed = EMA(decay=0.3)
    resumed.load_state_dict(average.state_dict())
    resumed.on_fit_start(trainer, model)
    found += run(resumed, model, trainer, [5.0, 4.0])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_a_batch_without_an_optimizer_step_does_not_move_the_average() -> None:
    model, trainer = Model(), cast("Any", SimpleNamespace(global_step=0))
    average = EMA(decay=0.5)
    average.on_fit_start(trainer, model)
    run(average, model, trainer, [3.0])
    before = average.averages["network.weight"].clone()
    model.network.weight.data.fill_(100.0)
    average.on_train_batch_end(trainer, model)
    assert torch.equal(average.averages["network.weight"], before)


def test_validation_sees_the_average_and_training_goes_on_with_the_weights() -> None:
    model, trainer = Model(), cast("Any", SimpleNamespace(global_step=0))
    model.network.weight.data.fill_(0.0)
    average = EMA(decay=0.9)
    average.on_fit_start(trainer, model)
    run(average, model, trainer, [8.0])
    average.on_validation_start(trainer, model)
    assert model.network.weight.item() == float(average.averages["network.weight"]) != 8.0
    checkpoint = {"state_dict": model.state_dict()}
    average.on_save_checkpoint(trainer, model, checkpoint)
    assert float(checkpoint["state_dict"]["network.weight"]) == 8.0, "a checkpoint in mid-validation continues training"
    average.on_validation_end(trainer, model)
    assert model.network.weight.item() == 8.0
