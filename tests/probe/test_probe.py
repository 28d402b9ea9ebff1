"""The solved head against scikit-learn's optimum, a number worked by hand, and the same problem read in pieces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression

from finetune import probe
from finetune.probe import Probe, Problem, solve


def made(count: int, dimensions: int, classes: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    labels_N = np.arange(count) % classes
    features_ND = rng.normal(size=(count, dimensions)).astype(np.float32) + 5
    features_ND[np.arange(count), labels_N] += 2
    return features_ND, labels_N


def problem_of(
    features_ND: npt.NDArray[np.float32], targets_NK: npt.NDArray[np.float64], *, multilabel: bool = False
) -> Problem:
    ones_N = np.ones(len(targets_NK))
    return Problem(lambda rows: features_ND[rows], lambda rows: targets_NK[rows], ones_N, multilabel)


def value(solution: Probe, features_ND: npt.NDArray[np.float32], targets_NK: npt.NDArray[np.float64]) -> float:
    """The objective in the features' own units, written once more."""
    exact_ND = features_ND.astype(np.float64)
    scale = np.sqrt(((exact_ND - exact_ND.mean(axis=0)) ** 2).sum() / len(exact_ND))
    logits_NK = exact_ND @ solution.weight_KD.T + solution.bias_K
    loss = -(targets_NK * log_softmax(logits_NK, axis=1)).sum(axis=1).mean()
    return float(loss + 0.5 * solution.strength * ((solution.weight_KD * scale) ** 2).sum())


@pytest.mark.parametrize(("count", "dimensions"), [(60, 200), (300, 20)], ids=["wide", "tall"])
def test_the_objective_is_scikit_learns_within_a_millionth(count: int, dimensions: int) -> None:
    features_ND, labels_N = made(count, dimensions, 4)
    targets_NK = np.eye(4)[labels_N]
    ours = solve(problem_of(features_ND, targets_NK), seed=0)
    exact_ND = features_ND.astype(np.float64)
    scale = np.sqrt(((exact_ND - exact_ND.mean(axis=0)) ** 2).sum() / count)
    centred_ND = (exact_ND - exact_ND.mean(axis=0)) / scale
    theirs = LogisticRegression(C=1 / (ours.strength * count), tol=1e-10, max_iter=100_000).fit(centred_ND, labels_N)
    weight_KD = theirs.coef_ / scale
    reference = Probe(weight_KD, theirs.intercept_ - weight_KD @ exact_ND.mean(axis=0), ours.strength, {}, ours.held)
    expected = value(reference, features_ND, targets_NK)
    assert value(ours, features_ND, targets_NK) == pytest.approx(expected, rel=1e-6)


def test_every_image_is_held_out_once_by_a_head_that_never_saw_it() -> None:
    """Labels without a pattern: a head that had seen an image would name it (400 dimensions for 60 images)."""
    rng = np.random.default_rng(0)
    features_ND = rng.normal(size=(60, 400)).astype(np.float32)
    labels_N = rng.permutation(np.arange(60) % 3)
    solution = solve(problem_of(features_ND, np.eye(3)[labels_N]), seed=0)
    assert solution.held.positions.tolist() == list(range(60))
    right = (solution.held.logits_MK.argmax(axis=1) == labels_N).mean()
    fitted = ((features_ND @ solution.weight_KD.T + solution.bias_K).argmax(axis=1) == labels_N).mean()
    assert right < 0.6
    assert fitted == 1.0


def test_reading_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features_ND, labels_N = made(300, 12, 3)
    targets_NK = np.eye(3)[labels_N]
    monkeypatch.setattr(probe, "_CROSS_VALIDATED", 60)
    whole = solve(problem_of(features_ND, targets_NK), seed=0)
    monkeypatch.setattr(probe, "_SMALL", 10)
    monkeypatch.setattr(probe, "_PIECE", 37)
    pieces = solve(problem_of(features_ND, targets_NK), seed=0)
    assert pieces.strength == whole.strength
    assert value(pieces, features_ND, targets_NK) == pytest.approx(value(whole, features_ND, targets_NK), rel=1e-6)


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    features_ND, labels_N = made(900, 12, 3)
    problem = problem_of(features_ND, np.eye(3)[labels_N])
    monkeypatch.setattr(probe, "_SMALL", 200)
    monkeypatch.setattr(probe, "_CROSS_VALIDATED", 150)
    one, four = (solve(problem, seed=0, threads=threads) for threads in (1, 4))
    assert (one.strength, one.losses) == (four.strength, four.losses)
    assert np.array_equal(one.weight_KD, four.weight_KD)
    assert np.array_equal(one.bias_K, four.bias_K)
    assert np.array_equal(one.held.logits_MK, four.held.logits_MK)


def test_multi_label_solves_each_class_for_itself() -> None:
    features_ND, labels_N = made(200, 6, 3)
    targets_NK = np.stack([labels_N == 0, labels_N != 1, features_ND[:, 5] > 5], axis=1).astype(np.float64)
    solution = solve(problem_of(features_ND, targets_NK, multilabel=True), seed=0)
    decided_NK = expit(features_ND @ solution.weight_KD.T + solution.bias_K) > 0.5
    assert (decided_NK == targets_NK).mean(axis=0) == pytest.approx([1, 1, 1], abs=0.12)


def test_noise_is_regularised_strongly_and_a_clear_signal_weakly() -> None:
    rng = np.random.default_rng(0)
    noise_ND = rng.normal(size=(80, 40)).astype(np.float32)
    targets_NK = np.eye(2)[rng.integers(0, 2, 80)]
    clear_ND, labels_N = made(80, 40, 2)
    clear_ND[np.arange(80), labels_N] += 20
    noisy = solve(problem_of(noise_ND, targets_NK), seed=0)
    clear = solve(problem_of(clear_ND, np.eye(2)[labels_N]), seed=0)
    assert noisy.strength > clear.strength


def test_the_gradient_is_the_slope_of_the_objective() -> None:
    features_ND, labels_N = made(30, 5, 3)
    pieces = [(features_ND.astype(np.float64), np.eye(3)[labels_N] * 0.9 + 0.1 / 3, np.linspace(1, 2, 30))]
    point = np.random.default_rng(1).normal(size=3 * 6)
    _, gradient = probe.objective(point, [lambda: iter(pieces)], 0.1, multilabel=False)
    for coordinate in range(len(point)):
        step = np.zeros_like(point)
        step[coordinate] = 1e-6
        above, _ = probe.objective(point + step, [lambda: iter(pieces)], 0.1, multilabel=False)
        below, _ = probe.objective(point - step, [lambda: iter(pieces)], 0.1, multilabel=False)
        assert gradient[coordinate] == pytest.approx((above - below) / 2e-6, abs=1e-6)


@pytest.mark.parametrize("in_memory", [20_000, 10])
def test_a_strength_that_is_known_is_not_looked_for_and_gives_the_same_head(
    monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    features_ND, labels_N = made(300, 12, 3)
    targets_NK = np.eye(3)[labels_N]
    found = solve(problem_of(features_ND, targets_NK), seed=0)
    monkeypatch.setattr(probe, "_SMALL", in_memory)
    monkeypatch.setattr(probe, "_CROSS_VALIDATED", 70)
    monkeypatch.setattr(probe, "cross_validate", lambda *_: pytest.fail("it was looked for"))
    known = solve(problem_of(features_ND, targets_NK), seed=1, strength=found.strength)
    assert value(known, features_ND, targets_NK) == pytest.approx(value(found, features_ND, targets_NK), rel=1e-6)
    assert (known.held, known.losses) == (None, {})
