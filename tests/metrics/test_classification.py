"""Every figure against scikit-learn's, on random predictions and on the corner cases that break averages."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from finetune.errors import DataError
from finetune.metrics import result
from finetune.metrics.classification import auroc, confusion_matrix, in_top, one_hot
from finetune.metrics.evaluation import evaluate
from finetune.metrics.predictions import Predictions

CASES = {
    "random": (0, 200, 7, range(7), None),
    "two classes": (1, 50, 2, range(2), None),
    "a class absent from the targets": (2, 60, 6, range(5), None),
    "a class never predicted": (3, 60, 6, range(6), 2),
    "one class among the targets": (4, 20, 6, [3], None),
    "one image": (5, 1, 8, range(8), None),
    "many classes few images": (6, 12, 40, range(40), None),
}


@pytest.fixture(params=list(CASES), ids=lambda name: name.replace(" ", "_"))
def case(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    seed, num_images, num_classes, present, never = CASES[request.param]
    rng = np.random.default_rng(seed)
    logits_NK = rng.normal(size=(num_images, num_classes)).round(1)  # rounded: ties between classes happen
    if never is not None:
        logits_NK[:, never] = -20.0
    return logits_NK, rng.choice(list(present), num_images)


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    exponential = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.filterwarnings("ignore:The number of unique classes is greater")
def test_single_label_figures_equal_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits_NK, targets_N = case
    num_classes = logits_NK.shape[1]
    predicted_N = logits_NK.argmax(axis=1)
    figures = result(logits_NK, targets_N)
    expected = {
        "accuracy": sk.accuracy_score(targets_N, predicted_N),
        "balanced_accuracy": sk.balanced_accuracy_score(targets_N, predicted_N),
        "macro_f1": sk.f1_score(targets_N, predicted_N, average="macro", zero_division=0),
        "macro_precision": sk.precision_score(targets_N, predicted_N, average="macro", zero_division=0),
        "macro_recall": sk.recall_score(targets_N, predicted_N, average="macro", zero_division=0),
        "loss": sk.log_loss(targets_N, softmax(logits_NK), labels=range(num_classes)),
    }
    if num_classes > 2:
        expected["brier"] = sk.brier_score_loss(targets_N, softmax(logits_NK), labels=range(num_classes))
    else:  # scikit-learn halves the two-class score
        expected["brier"] = 2 * sk.brier_score_loss(targets_N, softmax(logits_NK)[:, 1], pos_label=1)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_per_class_table_and_confusion_matrix_equal_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits_NK, targets_N = case
    num_classes = logits_NK.shape[1]
    names = tuple(f"class {k}" for k in range(num_classes))
    paths = tuple(map(str, range(len(targets_N))))
    found = evaluate(Predictions(paths, logits_NK.astype(np.float32), targets_N, names), resamples=2)
    predicted_N = logits_NK.astype(np.float32).argmax(axis=1)
    table = sk.precision_recall_fscore_support(targets_N, predicted_N, labels=range(num_classes), zero_division=0)
    ours = [[row.precision, row.recall, row.f1, row.support] for row in found.per_class]
    np.testing.assert_allclose(np.array(ours).T, np.array(table), atol=1e-12)
    np.testing.assert_array_equal(
        found.confusion, sk.confusion_matrix(targets_N, predicted_N, labels=range(num_classes))
    )


def test_auroc_equals_scikit_learns_where_it_is_defined_and_is_left_out_elsewhere(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    logits_NK, targets_N = case
    areas_K = auroc(logits_NK, one_hot(targets_N, logits_NK.shape[1]))
    for k, area in enumerate(areas_K):
        members_N = targets_N == k
        if members_N.all() or not members_N.any():
            assert np.isnan(area)
        else:
            assert area == pytest.approx(sk.roc_auc_score(members_N, logits_NK[:, k]), abs=1e-12)
    assert ("auroc" in result(logits_NK, targets_N)) == (not np.isnan(areas_K).all())


def test_top_five_equals_scikit_learns_and_needs_more_than_five_classes() -> None:
    rng = np.random.default_rng(0)
    logits_NK, targets_N = rng.normal(size=(300, 9)), rng.integers(0, 9, 300)
    expected = sk.top_k_accuracy_score(targets_N, logits_NK, k=5, labels=range(9))
    assert result(logits_NK, targets_N)["top5_accuracy"] == pytest.approx(expected)
    assert "top5_accuracy" not in result(logits_NK[:, :5], targets_N % 5)


def test_with_all_scores_equal_the_first_class_wins_at_every_k() -> None:
    tied_NK = np.zeros((4, 4))
    targets_N = np.arange(4)
    for k in range(1, 5):
        np.testing.assert_array_equal(in_top(tied_NK, targets_N, k), targets_N < k)


def test_figures_worked_by_hand() -> None:
    # three of class 0 (two right), one of class 1 (right), class 2 never occurs and is predicted once
    logits_NK = np.array([[5.0, 0, 0], [5, 0, 0], [0, 0, 5], [0, 5, 0]])
    figures = result(logits_NK, [0, 0, 0, 1])
    assert figures["accuracy"] == 3 / 4
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["macro_f1"] == pytest.approx((0.8 + 1.0 + 0.0) / 3)
    assert figures["auroc"] == pytest.approx((2.5 / 3 + 1.0) / 2)  # the third image ties with the fourth on class 0


def test_images_without_a_label_do_not_count_and_none_left_is_an_error() -> None:
    logits_NK = [[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]
    assert result(logits_NK, [0, -1, 1])["accuracy"] == 0.5
    with pytest.raises(DataError, match="no labelled image among 2"):
        result(logits_NK[:2], [-1, -1])


def test_a_diverged_network_gives_a_loss_that_is_not_finite_and_no_crash() -> None:
    figures = result(np.full((3, 2), np.nan), [0, 1, 1])
    assert np.isnan(figures["loss"])
    assert "auroc" not in figures


def test_confusion_matrix_rows_are_the_truth() -> None:
    np.testing.assert_array_equal(confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2), [[0, 2], [0, 1]])
