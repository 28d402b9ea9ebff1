"""What every loss promises: a finite scalar that falls as the answer gets better, whatever form the targets have."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from finetune.errors import DataError

COUNTS_K = torch.tensor([70, 20, 10])


def test_class_numbers_and_one_hot_rows_mean_the_same(loss, part):
    torch.manual_seed(0)
    criterion = part("loss", loss, COUNTS_K)
    logits_BK, targets_B = torch.randn(12, 3), torch.arange(12) % 3
    torch.testing.assert_close(criterion(logits_BK, targets_B), criterion(logits_BK, F.one_hot(targets_B, 3).float()))


def test_the_loss_falls_from_wrong_to_right(loss, part):
    criterion = part("loss", loss, COUNTS_K)
    targets_B = torch.tensor([0, 1, 2])
    right = F.one_hot(targets_B, 3).float()
    values = [criterion(certainty * right, targets_B).item() for certainty in (-4.0, -1.0, 0.0, 1.0, 4.0)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("size", [0.0, 1e-6, 80.0, 1e4])
def test_value_and_gradient_stay_finite_for_extreme_logits(loss, part, size):
    criterion = part("loss", loss, COUNTS_K)
    for sign in (1.0, -1.0):
        logits_BK = (sign * size * torch.eye(3)).requires_grad_()
        value = criterion(logits_BK, torch.tensor([0, 1, 2]))
        value.backward()
        assert value.ndim == 0
        assert torch.isfinite(value)
        assert torch.isfinite(logits_BK.grad).all()


def test_label_smoothing_makes_certainty_cost_more(loss, part):
    logits_BK, targets_B = 20.0 * torch.eye(3), torch.tensor([0, 1, 2])
    plain, smoothed = (part("loss", loss, COUNTS_K, label_smoothing=share) for share in (0.0, 0.1))
    assert smoothed(logits_BK, targets_B) > plain(logits_BK, targets_B) + 0.1


def test_balanced_weights_count_a_mistake_on_a_rare_class_more(loss, part):
    balanced = part("loss", loss, COUNTS_K, class_weights="balanced")
    targets_B = torch.tensor([0, 0, 2, 2])
    good_BK = 6.0 * F.one_hot(targets_B, 3).float()
    common_wrong, rare_wrong = good_BK.clone(), good_BK.clone()
    common_wrong[0] = -common_wrong[0]
    rare_wrong[2] = -rare_wrong[2]
    assert balanced(rare_wrong, targets_B) > 2 * balanced(common_wrong, targets_B)


def test_balanced_weights_refuse_a_class_without_images(loss, part):
    with pytest.raises(DataError, match=r"1 of 3 classes have no training image \(the first is number 1"):
        part("loss", loss, torch.tensor([3, 0, 4]), class_weights="balanced")


def test_a_loss_adds_nothing_to_the_checkpoint(loss, part):
    assert part("loss", loss, COUNTS_K, class_weights="balanced").state_dict() == {}
