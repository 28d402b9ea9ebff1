"""The losses against numbers that were not computed with torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from finetune.errors import DataError
from finetune.loss.binary_cross_entropy import BinaryCrossEntropy
from finetune.loss.cross_entropy import CrossEntropy
from finetune.loss.focal import Focal
from finetune.loss.weighting import weights_of

LABELS = np.array([0] * 6 + [1] * 3 + [2])
COUNTS_K = torch.from_numpy(np.bincount(LABELS))
LOGITS = np.random.default_rng(0).normal(size=(10, 3))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def test_balanced_weights_are_scikit_learn_s():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(weights_of(COUNTS_K, "balanced"), expected, rtol=1e-6)
    assert weights_of(COUNTS_K, "none").tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_cross_entropy_is_scikit_learn_s_log_loss(class_weights):
    per_image = weights_of(COUNTS_K, class_weights).numpy()[LABELS]
    expected = log_loss(LABELS, PROBABILITIES, sample_weight=per_image)
    value = CrossEntropy(COUNTS_K, class_weights=class_weights)(torch.tensor(LOGITS).float(), torch.tensor(LABELS))
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_logit_adjustment_scores_the_logits_with_the_prior_of_the_training_images(tau):
    adjusted = PROBABILITIES * (np.bincount(LABELS) / 10) ** tau
    expected = log_loss(LABELS, adjusted / adjusted.sum(1, keepdims=True))
    value = CrossEntropy(COUNTS_K, logit_adjustment=tau)(torch.tensor(LOGITS).float(), torch.tensor(LABELS))
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_logit_adjustment_refuses_a_class_without_images():
    with pytest.raises(DataError, match=r"loss\.logit_adjustment=1: 1 of 2 classes have no training image"):
        CrossEntropy(torch.tensor([3, 0]), logit_adjustment=1.0)


def test_focal_loss_worked_by_hand():
    # two classes, logits equal: p = 1/2, so (1 - 1/2)^2 * ln 2
    value = Focal(torch.ones(2), gamma=2.0)(torch.zeros(1, 2), torch.tensor([0]))
    assert value.item() == pytest.approx(0.25 * np.log(2), rel=1e-6)


def test_focal_loss_without_focus_is_cross_entropy():
    logits_BK, targets_B = torch.tensor(LOGITS).float(), torch.tensor(LABELS)
    torch.testing.assert_close(
        Focal(COUNTS_K, gamma=0.0)(logits_BK, targets_B), CrossEntropy(COUNTS_K)(logits_BK, targets_B)
    )


def test_binary_cross_entropy_takes_several_labels_and_worked_numbers():
    targets_BK = np.array([[1.0, 0.0, 1.0]] * 5 + [[0.0, 0.0, 0.0]] * 5)
    p = 1 / (1 + np.exp(-LOGITS))
    expected = -(targets_BK * np.log(p) + (1 - targets_BK) * np.log(1 - p)).mean()
    value = BinaryCrossEntropy(COUNTS_K)(torch.tensor(LOGITS).float(), torch.tensor(targets_BK).float())
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_smoothing_a_binary_target_draws_it_towards_one_half():
    # target 1 smoothed by 0.2 is 0.9; at logit 0 every answer costs ln 2, at logit z it costs ln(1 + e^z) - 0.9 z
    value = BinaryCrossEntropy(torch.ones(1), label_smoothing=0.2)(torch.tensor([[2.0]]), torch.tensor([[1.0]]))
    assert value.item() == pytest.approx(np.log1p(np.exp(2.0)) - 0.9 * 2.0, rel=1e-5)
