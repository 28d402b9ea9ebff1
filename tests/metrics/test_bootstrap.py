"""The intervals cover the truth as often as they claim, and McNemar's test equals statistics done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm

from finetune.metrics.bootstrap import difference, single_label, wilson
from finetune.metrics.evaluation import compare
from finetune.metrics.mcnemar import mcnemar
from finetune.metrics.predictions import Predictions


def simulate(rng: np.random.Generator, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of four classes; the share of right ones in the long run is known only by drawing very many."""
    targets_N = rng.choice(4, num_images, p=[0.4, 0.3, 0.2, 0.1])
    logits_NK = rng.normal(size=(num_images, 4))
    logits_NK[np.arange(num_images), targets_N] += 1.6
    return logits_NK, targets_N


def test_the_interval_of_accuracy_covers_the_truth_in_93_to_97_percent_of_300_sets() -> None:
    rng = np.random.default_rng(0)
    logits_NK, targets_N = simulate(rng, 2_000_000)
    truth = float((logits_NK.argmax(1) == targets_N).mean())
    covered = 0
    for seed in range(300):
        logits_NK, targets_N = simulate(rng, 300)
        low, high = single_label(logits_NK, targets_N, resamples=250, seed=seed)["accuracy"]
        covered += low <= truth <= high
    assert 0.93 <= covered / 300 <= 0.97


def test_an_interval_contains_its_figure_and_is_the_same_when_repeated() -> None:
    logits_NK, targets_N = simulate(np.random.default_rng(1), 80)
    first = single_label(logits_NK, targets_N, resamples=200)
    assert first == single_label(logits_NK, targets_N, resamples=200)
    assert first != single_label(logits_NK, targets_N, resamples=200, seed=1)
    assert {"accuracy", "balanced_accuracy", "macro_f1", "loss", "ece"} <= set(first)


def test_without_any_mistake_accuracy_gets_wilsons_interval_and_the_others_none() -> None:
    logits_NK = 9.0 * np.eye(2)[[0, 1] * 5]
    found = single_label(logits_NK, np.array([0, 1] * 5), resamples=50)
    z = norm.ppf(0.975)
    assert found["accuracy"] == pytest.approx((10 / (10 + z**2), 1.0))
    assert "balanced_accuracy" not in found


def test_wilson_interval_ends_where_the_score_test_just_rejects() -> None:
    low, high = wilson(7, 20)
    for end in (low, high):
        assert abs(7 / 20 - end) / np.sqrt(end * (1 - end) / 20) == pytest.approx(norm.ppf(0.975))


def test_mcnemar_is_the_binomial_tail_of_the_disputed_images() -> None:
    first_N = np.array([True] * 9 + [False] * 2 + [True] * 30)
    second_N = np.array([False] * 9 + [True] * 2 + [True] * 30)
    found = mcnemar(first_N, second_N)
    assert (found.only_first, found.only_second) == (9, 2)
    assert found.p_value == pytest.approx(2 * binom.cdf(2, 11, 0.5))
    assert mcnemar(first_N, first_N).p_value == 1.0


def test_a_comparison_of_two_models_states_the_gap_its_interval_and_the_test() -> None:
    rng = np.random.default_rng(2)
    logits_NK, targets_N = simulate(rng, 400)
    worse_NK = logits_NK + rng.normal(size=logits_NK.shape)
    paths = tuple(map(str, range(400)))
    first, second = (
        Predictions(paths, scores.astype(np.float32), targets_N, tuple("abcd")) for scores in (logits_NK, worse_NK)
    )
    found = compare(first, second)
    assert found.difference == pytest.approx(found.accuracy - found.other_accuracy)
    assert found.interval is not None
    assert 0 < found.interval.low < found.difference < found.interval.high
    assert found.test.p_value < 0.05
    assert compare(first, first).interval is None
    assert difference(np.array([True, False]), np.array([True, False])) is None
