"""Calibration against torchmetrics, against closed forms, and against the networks it is meant to mend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from finetune.errors import DataError
from finetune.metrics import result
from finetune.metrics.calibration import fit_temperature, nll, reliability
from finetune.metrics.evaluation import evaluate
from finetune.metrics.predictions import Predictions


def overconfident(seed: int, num_images: int = 500, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Targets drawn from softmax(s), scores reported as ``scale`` * s: the right temperature is ``scale``."""
    rng = np.random.default_rng(seed)
    true_NK = rng.normal(size=(num_images, 6)) * 1.5
    targets_N = (true_NK + rng.gumbel(size=true_NK.shape)).argmax(axis=1)
    return scale * true_NK, targets_N


@pytest.mark.parametrize("seed", range(5))
def test_ece_equals_that_of_torchmetrics(seed: int) -> None:
    logits_NK, targets_N = overconfident(seed)
    theirs = multiclass_calibration_error(
        torch.tensor(logits_NK).softmax(1), torch.tensor(targets_N), num_classes=6, n_bins=15, norm="l1"
    )
    assert result(logits_NK, targets_N)["ece"] == pytest.approx(float(theirs), abs=1e-6)


def test_ece_of_several_labels_equals_that_of_torchmetrics_over_every_yes_or_no() -> None:
    rng = np.random.default_rng(0)
    logits_NK, targets_NK = 3 * rng.normal(size=(400, 4)), rng.integers(0, 2, (400, 4))
    theirs = binary_calibration_error(
        torch.tensor(logits_NK).sigmoid().flatten(), torch.tensor(targets_NK).flatten(), n_bins=15, norm="l1"
    )
    assert result(logits_NK, targets_NK.astype(np.float64))["ece"] == pytest.approx(float(theirs), abs=1e-6)


def test_ece_worked_by_hand_with_confidences_on_the_edges_of_bins() -> None:
    curve = reliability(np.array([0.5, 0.5, 1.0, 0.0]), np.array([True, False, True, False]), num_bins=2)
    np.testing.assert_array_equal(curve.images, [3, 1])
    np.testing.assert_allclose(curve.confidence, [1 / 3, 1.0])
    np.testing.assert_allclose(curve.accuracy, [1 / 3, 1.0])
    assert curve.ece == pytest.approx(0.0)
    assert reliability(np.array([0.9, 0.9]), np.array([True, False])).ece == pytest.approx(0.4)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_that_the_scores_were_made_with_is_found(scale: float) -> None:
    logits_NK, targets_N = overconfident(0, num_images=20_000, scale=scale)
    assert fit_temperature(logits_NK, targets_N) == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_temperature_lowers_the_loss_on_val_and_changes_no_decision(seed: int) -> None:
    logits_NK, targets_N = overconfident(seed, num_images=60)
    temperature = fit_temperature(logits_NK, targets_N)
    figures = result(logits_NK, targets_N, temperature=temperature)
    assert figures["loss_calibrated"] < figures["loss"]
    assert figures["ece_calibrated"] < figures["ece"]
    paths = tuple(map(str, range(60)))
    plain = Predictions(paths, logits_NK.astype(np.float32), targets_N, tuple("abcdef"))
    scaled = Predictions(paths, logits_NK.astype(np.float32), targets_N, tuple("abcdef"), temperature)
    assert [plain.prediction(i) for i in range(60)] == [scaled.prediction(i) for i in range(60)]
    np.testing.assert_array_equal(scaled.probabilities_NK.argmax(1), logits_NK.argmax(1))
    assert evaluate(scaled, resamples=2).reliability_calibrated.ece == pytest.approx(figures["ece_calibrated"])


def test_a_few_images_all_right_do_not_drive_the_temperature_to_zero() -> None:
    temperature = fit_temperature(np.array([[2.0, 0.0], [0.0, 2.0], [2.5, 0.0]]), np.array([0, 1, 0]))
    assert 0.3 < temperature <= 1.0


def test_multi_label_temperature_lowers_the_binary_loss() -> None:
    rng = np.random.default_rng(0)
    true_NK = rng.normal(size=(4000, 3))
    targets_NK = (rng.random(true_NK.shape) < 1 / (1 + np.exp(-true_NK))).astype(np.float64)
    assert fit_temperature(4 * true_NK, targets_NK) == pytest.approx(4.0, rel=0.1)


def test_unlabelled_images_do_not_take_part_in_the_fit() -> None:
    logits_NK, targets_N = overconfident(1)
    rows_N = np.arange(len(targets_N)) % 3 > 0
    partly = np.where(rows_N, targets_N, -1)
    assert fit_temperature(logits_NK, partly) == pytest.approx(fit_temperature(logits_NK[rows_N], targets_N[rows_N]))
    with pytest.raises(DataError, match="no labelled image"):
        fit_temperature(logits_NK, np.full(len(targets_N), -1))


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        fit_temperature([[np.nan, 0.0]], [0])


def test_loss_of_a_certain_mistake_is_finite() -> None:
    assert nll(np.array([[1000.0, 0.0]]), np.array([1]))[0] == pytest.approx(1000.0)
