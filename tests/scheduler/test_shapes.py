"""Learning rates against torch's own schedulers, which keep state where ours compute."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from finetune.scheduler.constant import Constant
from finetune.scheduler.cosine import Cosine
from finetune.scheduler.one_cycle import OneCycle

STEPS = 100


def torch_rates(scheduler: LRScheduler) -> list[float]:
    rates = []
    for _ in range(STEPS):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_cosine_is_torch_s_cosine_annealing() -> None:
    expected = torch_rates(CosineAnnealingLR(optimizer(), T_max=STEPS, eta_min=0.01))
    ours = Cosine(warmup_epochs=0.0, final_factor=0.01)
    assert [ours(step / 10, STEPS // 10) for step in range(STEPS)] == pytest.approx(expected)


def test_one_cycle_is_torch_s_one_cycle() -> None:
    # torch places its peak at pct_start * total_steps - 1 and its end at total_steps - 1; ours are shares of the run
    reference = OneCycleLR(optimizer(), max_lr=1.0, total_steps=STEPS, pct_start=0.307, cycle_momentum=False)
    expected = torch_rates(reference)
    ours = OneCycle(peak=(0.307 * STEPS - 1) / (STEPS - 1))
    assert [ours(step, STEPS - 1) for step in range(STEPS)] == pytest.approx(expected)


def test_the_warm_up_is_a_straight_line_and_takes_at_most_a_third_of_the_run() -> None:
    assert [Cosine(warmup_epochs=2.0)(at, 10) for at in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([0.0, 0.25, 0.5, 1.0])
    assert Cosine(warmup_epochs=5.0)(1.0, 3) == pytest.approx(1.0)


def test_constant_stays_at_one_after_its_warm_up() -> None:
    assert [Constant(warmup_epochs=1.0)(at, 10) for at in (0.0, 0.5, 1.0, 9.9)] == [0.0, 0.5, 1.0, 1.0]
    assert Constant()(0.0, 10) == 1.0
