"""Means over repetitions, how sure they are, and whether the best is better than the next.

Repetitions are seeds and folds. Seeds are treated as independent draws. The folds of one cross-validation share
training images, so their differences vary less than independent ones would; the variance is then scaled as Nadeau and
Bengio (Machine Learning 52, 2003) propose. A p-value of the best against the next says nothing about how many
configurations were tried: with twenty, one in twenty looks significant at .05 by luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """Mean, standard deviation (n - 1) and 95% interval of the mean by Student's t; None where n is too small."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


class Comparison(NamedTuple):
    """Best against next: the difference of the means and its two-sided p-value; ``test`` is what was possible."""

    difference: float
    p_value: float | None
    test: Literal["paired t", "paired t, corrected for folds", "Welch t", "none: one repetition"]
    n: int


def estimate(values: Sequence[float], folds: int | None = None) -> Estimate:
    """Mean and interval of repetitions; ``folds`` is the number of folds when that is what they are."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return Estimate(n, mean, None, None, None)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * std * math.sqrt(_variance_factor(n, folds))
    return Estimate(n, mean, std, mean - half, mean + half)


def compare(
    best: dict[tuple[str, str], float], other: dict[tuple[str, str], float], folds: int | None = None
) -> Comparison:
    """Two configurations, each a value per repetition; paired where they share two or more repetitions."""
    shared = sorted(set(best) & set(other))
    if len(shared) >= 2:
        differences = np.array([best[key] - other[key] for key in shared])
        n = len(shared)
        test: Literal["paired t", "paired t, corrected for folds"] = (
            "paired t, corrected for folds" if folds else "paired t"
        )
        spread = float(differences.std(ddof=1)) * math.sqrt(_variance_factor(n, folds))
        return Comparison(float(differences.mean()), _two_sided(float(differences.mean()), spread, n - 1), test, n)
    first, second = np.array(list(best.values())), np.array(list(other.values()))
    difference = float(first.mean() - second.mean())
    n = min(len(first), len(second))
    if n < 2:
        return Comparison(difference, None, "none: one repetition", n)
    shares = [values.var(ddof=1) / len(values) for values in (first, second)]
    total = float(sum(shares))
    if total == 0:
        return Comparison(difference, _two_sided(difference, 0.0, 1), "Welch t", n)
    freedom = total**2 / sum(share**2 / (len(values) - 1) for share, values in zip(shares, (first, second)))
    return Comparison(difference, _two_sided(difference, math.sqrt(total), freedom), "Welch t", n)


def variance_explained(groups: Sequence[Sequence[float]]) -> float:
    """Share of the values' variance that lies between the groups (eta squared), 0 to 1; 0 when nothing varies."""
    values = np.concatenate([np.asarray(group, dtype=float) for group in groups])
    total = float(((values - values.mean()) ** 2).sum())
    between = sum(len(group) * (float(np.mean(group)) - float(values.mean())) ** 2 for group in groups)
    return between / total if total > 0 else 0.0


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, -1 to 1; 0 when one of them does not vary."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])


def _variance_factor(n: int, folds: int | None) -> float:
    """What the variance of a value is multiplied by to have that of the mean."""
    return 1 / n if not folds else 1 / n + 1 / (folds - 1)


def _two_sided(difference: float, standard_error: float, freedom: float) -> float:
    if standard_error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / standard_error, freedom))
