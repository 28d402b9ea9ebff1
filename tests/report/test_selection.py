"""Which images a reader is shown first, worked by hand on six of them."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.metrics.predictions import Predictions
from finetune.report import selection


@pytest.fixture
def six() -> Predictions:
    """Rows: 0 right and sure, 1 wrong and sure, 2 wrong and unsure, 3 right and unsure, 4 right, 5 unlabelled."""
    margin_N = np.array([4.0, -3.0, -0.5, 0.2, 2.0, 0.1])  # towards the true class
    true_N = np.array([0, 0, 1, 1, 1, 0])
    logits_NK = np.zeros((6, 2), dtype=np.float32)
    logits_NK[np.arange(6), true_N] = margin_N
    return Predictions(tuple("uvwxyz"), logits_NK, np.array([0, 0, 1, 1, 1, -1]), ("a", "b"))


def test_the_most_confident_mistakes_come_first_and_unlabelled_images_are_none(six: Predictions) -> None:
    assert selection.confident_mistakes(six, 9) == [1, 2]
    assert selection.confident_mistakes(six, 1) == [1]


def test_the_least_certain_are_right_or_wrong(six: Predictions) -> None:
    assert selection.least_certain(six, 3) == [5, 3, 2]


def test_the_best_of_a_class_are_its_right_images(six: Predictions) -> None:
    assert selection.best_of_each_class(six, 2) == {"a": [0], "b": [4, 3]}


def test_cells_hold_their_images_and_mistakes_are_shown_before_the_diagonal(six: Predictions) -> None:
    cells = selection.by_cell(six)
    assert cells == {(0, 0): [0], (0, 1): [1], (1, 0): [2], (1, 1): [4, 3]}
    assert list(selection.round_robin(cells)) == [1, 2, 0, 4, 3]
