"""Which point between probe and fine-tuned network is kept: the one nearest to the probe that val cannot tell from the best.

Val is small where it matters, and one standard error of an accuracy on 20 images is 0.1. Two things make the most of it.

The probe is also known from cross-validation on the training images. What val says of a candidate is corrected by how
far val is off for the probe, times the regression of the candidate's scores on the probe's (a control variate, as in
Owen 2013, *Monte Carlo theory*, 8.9). So a val set that happens to be hard for the probe flatters nobody.

Among candidates within one standard error of the best, image by image on the same images, the one nearest to the probe is
kept (the rule of one standard error, Breiman et al. 1984). None is kept that val itself puts below the probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.metrics import calibration

Floats = npt.NDArray[np.float64]
_OF_LOSS = ("loss", "ece", "map", "f1")
"""Monitors that are no mean over images, and the loss itself: images are compared by their loss."""


class HeldOut(NamedTuple):
    """Mean score of the probe over ``images`` training images that it was not solved on."""

    score: float
    images: int


class Candidate(NamedTuple):
    """A point between probe and fine-tuned network: its monitor on val, its estimated score, its error against the best."""

    coefficient: float
    value: float
    estimate: float = 0.0
    standard_error: float = 0.0


def scores(logits_NK: npt.NDArray[np.floating], targets: npt.NDArray[np.generic], monitor: str) -> Floats:
    """What each image adds to the mean, more being better: right or wrong, by class for a balanced monitor, or minus loss."""
    name = monitor.removeprefix("val/")
    if targets.ndim == 2 or name in _OF_LOSS:
        losses_N: Floats = calibration.nll(logits_NK, targets)
        return -losses_N
    right_N: Floats = (logits_NK.argmax(axis=1) == targets).astype(np.float64)
    if name == "accuracy":
        return right_N
    counts_K = np.bincount(targets.astype(np.int64))
    weights_N: Floats = len(targets) / ((counts_K > 0).sum() * counts_K[targets.astype(np.int64)])
    return right_N * weights_N


def choose(
    measured: Sequence[tuple[float, float, Floats]], held_out: HeldOut | None, *, larger_is_better: bool
) -> tuple[Candidate, list[Candidate]]:
    """The candidate to keep and all with their estimates; ``measured`` is (coefficient, monitor, scores N), the probe first."""
    probe_N = measured[0][2]
    count = len(probe_N)
    slopes = [_slope(scores_N, probe_N) for _, _, scores_N in measured]
    correction, doubt = 0.0, 0.0
    if held_out is not None:
        known = (held_out.score * held_out.images + probe_N.sum()) / (held_out.images + count)
        correction = known - float(probe_N.mean())
        doubt = float(probe_N.var()) / (held_out.images + count)
    else:
        slopes = [0.0] * len(measured)
    estimates = [float(scores_N.mean()) + slope * correction for (_, _, scores_N), slope in zip(measured, slopes)]
    sign = 1.0 if larger_is_better else -1.0
    eligible = [n for n, (_, value, _) in enumerate(measured) if sign * value >= sign * measured[0][1]]
    top = max(eligible, key=lambda n: (estimates[n], -n))
    candidates = []
    for (coefficient, value, scores_N), slope, estimate in zip(measured, slopes, estimates):
        gaps_N = measured[top][2] - scores_N - (slopes[top] - slope) * probe_N
        error = np.sqrt(gaps_N.var(ddof=min(1, count - 1)) / count + (slopes[top] - slope) ** 2 * doubt)
        candidates.append(Candidate(coefficient, value, estimate, float(error)))
    kept = next(n for n in eligible if estimates[top] - estimates[n] <= candidates[n].standard_error)
    return candidates[kept], candidates


def why(kept: Candidate, candidates: Sequence[Candidate], held_out: HeldOut | None, count: int) -> dict[str, str]:
    """What was compared, what is kept and for what reason, in words for the terminal and the report."""
    found = "  ".join(f"{candidate.coefficient:g}: {candidate.value:.4f}" for candidate in candidates)
    known = "" if held_out is None else f"; the probe has {held_out.score:.4f} cross-validated on {held_out.images:,}"
    rivals = [candidate for candidate in candidates if candidate.estimate > kept.estimate]
    best = max(rivals, key=lambda candidate: candidate.estimate, default=kept)
    gap = best.estimate - kept.estimate
    if best is kept:
        reason = "the best estimate"
    elif gap <= kept.standard_error:
        reason = f"{best.coefficient:g} is better by {gap:.3f}, within the standard error of {kept.standard_error:.3f}"
    else:
        reason = "the others are worse than the probe on val, or not better by a standard error"
    return {
        "between": f"{found} on {count:,} val images{known}",
        "kept": f"{_in_words(kept.coefficient)}: {reason}",
    }


def _in_words(coefficient: float) -> str:
    if coefficient in (0.0, 1.0):
        return "the fine-tuned network" if coefficient else "the probe"
    return f"the point {coefficient:.0%} of the way from the probe to the fine-tuned network"


def _slope(scores_N: Floats, probe_N: Floats) -> float:
    """Regression of a candidate's scores on the probe's, within [0, 1]; the probe's own is 1."""
    spread = float(probe_N.var())
    if scores_N is probe_N or spread == 0.0:
        return 1.0 if scores_N is probe_N else 0.0
    return float(np.clip(np.mean((scores_N - scores_N.mean()) * (probe_N - probe_N.mean())) / spread, 0.0, 1.0))
