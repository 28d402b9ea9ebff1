"""Several classes per image, against scikit-learn and against a search over every threshold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from finetune.metrics import result
from finetune.metrics.evaluation import evaluate
from finetune.metrics.multilabel import fit_thresholds
from finetune.metrics.predictions import Predictions


def made(seed: int, num_images: int = 120, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets_NK = (rng.random((num_images, num_classes)) < 0.3).astype(np.float64)
    return np.round(rng.normal(size=targets_NK.shape) + 1.5 * targets_NK - 1.0, 1), targets_NK


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("empty_class", [False, True])
def test_multi_label_figures_equal_those_of_scikit_learn(empty_class: bool) -> None:
    logits_NK, targets_NK = made(0)
    if empty_class:
        targets_NK[:, 2] = 0
    kept = [k for k in range(5) if targets_NK[:, k].any()]
    probabilities_NK, decided_NK = sigmoid(logits_NK), logits_NK >= 0
    figures = result(logits_NK, targets_NK)
    assert figures["map"] == pytest.approx(
        np.mean([sk.average_precision_score(targets_NK[:, k], probabilities_NK[:, k]) for k in kept])
    )
    assert figures["auroc"] == pytest.approx(
        np.mean([sk.roc_auc_score(targets_NK[:, k], probabilities_NK[:, k]) for k in kept])
    )
    assert figures["f1"] == pytest.approx(sk.f1_score(targets_NK, decided_NK, average="macro", zero_division=0))
    assert figures["micro_f1"] == pytest.approx(sk.f1_score(targets_NK, decided_NK, average="micro"))
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(targets_NK, decided_NK))
    assert figures["hamming_accuracy"] == pytest.approx(1 - sk.hamming_loss(targets_NK, decided_NK))
    assert figures["brier"] == pytest.approx(
        np.mean(
            [sk.brier_score_loss(targets_NK[:, k], probabilities_NK[:, k]) for k in kept]
            + [np.square(probabilities_NK[:, k]).mean() for k in range(5) if k not in kept]
        )
    )
    assert figures["loss"] == pytest.approx(
        np.mean([sk.log_loss(targets_NK[:, k], probabilities_NK[:, k], labels=[0, 1]) for k in range(5)])
    )


def test_no_label_anywhere_leaves_out_what_is_undefined() -> None:
    figures = result(np.full((3, 2), -1.0), np.zeros((3, 2)))
    assert figures["accuracy"] == 1.0
    assert figures["f1"] == 0.0
    assert not {"map", "auroc"} & set(figures)


def test_fitted_thresholds_reach_the_best_f1_that_any_threshold_reaches() -> None:
    logits_NK, targets_NK = made(1)
    targets_NK[:, 4] = 0
    probabilities_NK = sigmoid(logits_NK)
    thresholds = fit_thresholds(probabilities_NK, targets_NK)
    for k in range(4):
        candidates = np.unique(probabilities_NK[:, k])
        best = max(sk.f1_score(targets_NK[:, k], probabilities_NK[:, k] >= limit) for limit in candidates)
        assert sk.f1_score(targets_NK[:, k], probabilities_NK[:, k] >= thresholds[k]) == pytest.approx(best)
    assert thresholds[4] == 0.5


def test_thresholds_and_temperature_reach_the_decisions_the_table_and_the_curve() -> None:
    logits_NK, targets_NK = made(2)
    names = tuple("abcde")
    paths = tuple(map(str, range(len(logits_NK))))
    thresholds = (0.2, 0.4, 0.6, 0.8, 0.5)
    predictions = Predictions(paths, logits_NK.astype(np.float32), targets_NK, names, 2.0, thresholds)
    decided_NK = sigmoid(logits_NK.astype(np.float32) / 2) >= np.array(thresholds)
    found = evaluate(predictions, resamples=20)
    np.testing.assert_allclose([row.f1 for row in found.per_class], sk.f1_score(targets_NK, decided_NK, average=None))
    assert found.metrics["f1"] == pytest.approx(sk.f1_score(targets_NK, decided_NK, average="macro"))
    assert found.confusion is None
    assert found.intervals["f1"].low <= found.metrics["f1"] <= found.intervals["f1"].high
    assert predictions.prediction(3) == "|".join(np.array(names)[decided_NK[3]])
    assert predictions.label(3) == "|".join(np.array(names)[targets_NK[3] == 1])
