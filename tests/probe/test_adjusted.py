"""A head that is solved for a logit-adjusted loss, against the same loss minimised by torch, with the prior in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from finetune.cache.store import Features
from finetune.head.linear import LinearHead
from finetune.loss.cross_entropy import CrossEntropy
from finetune.solved_head import Solved, is_convex, solve_head

COUNTS = (60, 30, 6)
LABELS = np.repeat(np.arange(3), COUNTS)
FEATURES_ND = torch.randn(96, 5, generator=torch.Generator().manual_seed(0)) + F.one_hot(torch.tensor(LABELS), 5)


def solved(monitor: str = "val/balanced_accuracy", **options: Any) -> tuple[LinearHead, CrossEntropy, Solved]:
    """The head of a run on features as they are, everything around it left out."""
    head, loss = LinearHead(5, 3), CrossEntropy(torch.tensor(COUNTS), **options)
    count = len(LABELS)
    features = Features((FEATURES_ND,), np.zeros(count, np.int32), np.arange(count))
    table = SimpleNamespace(
        rows=lambda _: np.arange(count), targets=LABELS, task="multiclass", classes=("many", "some", "few")
    )
    model = SimpleNamespace(
        network=SimpleNamespace(head=head), loss=loss, reuse=SimpleNamespace(pooled=lambda _: features)
    )
    return head, loss, solve_head(model, SimpleNamespace(table=table), 0, monitor)  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_head_has_the_least_adjusted_loss_that_torch_finds(tau: float, smoothing: float) -> None:
    head, loss, found = solved(logit_adjustment=tau, label_smoothing=smoothing)
    assert is_convex(head, loss)
    x_ND = FEATURES_ND.double()
    log_prior_K = (torch.tensor(COUNTS) / 96).double().log()
    scale_squared = (x_ND - x_ND.mean(0)).square().sum() / 96
    weight_KD, bias_K = torch.zeros(3, 5).double().requires_grad_(), torch.zeros(3).double().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight_KD, bias_K], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits_NK = x_ND @ weight_KD.T + bias_K + tau * log_prior_K
        value = F.cross_entropy(logits_NK, torch.tensor(LABELS), label_smoothing=smoothing)
        value = value + 0.5 * found.strength * scale_squared * weight_KD.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    np.testing.assert_allclose(head.linear.weight.detach(), weight_KD.detach(), atol=2e-4)
    biases = [bias_K.detach().numpy(), head.linear.bias.detach().double().numpy()]  # up to what all classes share
    np.testing.assert_allclose(*(bias - bias.mean() for bias in biases), atol=2e-4)


def test_the_held_out_score_is_that_of_the_adjusted_head() -> None:
    """Rare classes are found more often, so balanced accuracy rises and accuracy falls; the strength is the plain one."""
    scores = {
        (monitor, tau): solved(f"val/{monitor}", logit_adjustment=tau)[2]
        for monitor in ("balanced_accuracy", "accuracy")
        for tau in (0.0, 1.0)
    }
    gains = {
        monitor: scores[monitor, 1.0].held_out.score - scores[monitor, 0.0].held_out.score
        for monitor in ("balanced_accuracy", "accuracy")
    }
    assert gains["balanced_accuracy"] > 0.02
    assert gains["accuracy"] < -0.02
    assert len({found.strength for found in scores.values()}) == 1
