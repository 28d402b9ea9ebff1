"""Flipped labels of real handwritten digits are found, by predictions of models that never saw the image."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from finetune.metrics.predictions import Predictions
from finetune.report.label_errors import label_errors


@pytest.fixture(scope="module")
def flipped_digits() -> tuple[Predictions, set[int]]:
    """1,797 digits, 5% of whose labels are changed to another one, and which ones those are."""
    images_ND, true_N = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    flipped = rng.choice(len(true_N), size=round(0.05 * len(true_N)), replace=False)
    labels_N = true_N.copy()
    labels_N[flipped] = (true_N[flipped] + rng.integers(1, 10, len(flipped))) % 10
    model = LogisticRegression(C=0.01, max_iter=300)
    probabilities_NK = cross_val_predict(model, images_ND / 16.0, labels_N, cv=5, method="predict_proba")
    paths = tuple(f"{row:04d}.png" for row in range(len(labels_N)))
    logits_NK = np.log(probabilities_NK).astype(np.float32)
    return Predictions(paths, logits_NK, labels_N, tuple("0123456789")), set(map(int, flipped))


def test_of_the_five_percent_ranked_first_most_were_flipped(flipped_digits: tuple[Predictions, set[int]]) -> None:
    predictions, flipped = flipped_digits
    found = label_errors(predictions)
    first = found[: len(flipped)]  # 5% of all images
    hits = len(flipped.intersection(first))
    precision, recall = hits / len(first), hits / len(flipped)
    listed = len(flipped.intersection(found)) / len(found)
    print(
        f"first 5%: precision {precision:.2f}, recall {recall:.2f}; whole list of {len(found)}: precision {listed:.2f}"
    )
    assert precision > 0.8  # chance is 0.05
    assert recall > 0.8
    assert len(set(found)) == len(found)


def test_unlabelled_images_and_absent_classes_are_taken_in_stride(flipped_digits: tuple[Predictions, set[int]]) -> None:
    predictions, flipped = flipped_digits
    targets_N = np.where(predictions.targets == 7, -1, predictions.targets)
    partly = Predictions(predictions.paths, predictions.logits_NK, targets_N, predictions.classes)
    found = label_errors(partly)
    assert all(targets_N[row] >= 0 for row in found)
    assert len(flipped.intersection(found)) / len(found) > 0.5


def test_one_image_or_one_class_has_no_label_errors() -> None:
    classes = ("a", "b")
    assert label_errors(Predictions(("x",), np.zeros((1, 2), np.float32), np.array([0]), classes)) == []
    assert label_errors(Predictions(tuple("xyz"), np.zeros((3, 2), np.float32), np.array([0, 0, 0]), classes)) == []


def test_missing_and_added_labels_of_multi_label_data_are_found() -> None:
    rng = np.random.default_rng(1)
    targets_NK = (rng.random((200, 4)) < 0.4).astype(np.float64)
    logits_NK = np.where(targets_NK > 0, 4.0, -4.0) + rng.normal(scale=0.5, size=targets_NK.shape)
    wrong = set(range(0, 200, 10))
    for row in wrong:
        targets_NK[row, row % 4] = 1 - targets_NK[row, row % 4]
    paths = tuple(map(str, range(200)))
    found = label_errors(Predictions(paths, logits_NK.astype(np.float32), targets_NK, tuple("abcd")))
    assert len(wrong.intersection(found)) >= 18
    assert len(set(found) - wrong) <= 2
