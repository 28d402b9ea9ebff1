"""The linear head is solved, not trained: with the backbone frozen it is a convex problem.

Minimises ``mean_i w_i * loss(x_i W + b, t_i) + strength / 2 * |W|^2`` by L-BFGS (SciPy's), softmax cross-entropy for one
class per image, binary cross-entropy for several; targets may be soft. Features are centred and scaled by one number, so
that a strength means the same for every network. The strength comes from a path of six, each decade from 1 to 1e-5, by
cross-validated loss on the training images; every solution starts from its stronger neighbour's. A few seconds for some
hundred images. More than 20,000 are read in pieces, so a million rows of 2,048 need no more memory than a few of them, and
multiplied in float32; sums stay in float64, and the objective is the optimum within 1e-8. Threads then share the pieces
in a way that does not depend on how many there are, and neither does the result.

When features outnumber images the problem is solved in the span of the images, which is exact: the gradient never
leaves it. Sources: Kornblith et al. 2019 (arXiv:1805.08974) for the probe; Liu and Nocedal 1989 for L-BFGS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from threadpoolctl import threadpool_limits

from finetune.random_keys import generator

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Rows = Callable[[Ints], npt.NDArray[np.float32]]
"""Positions to features, n x D."""
Shard = Callable[[], Iterator[tuple[Features, Floats, Floats]]]
"""Features n x D, targets n x K and weights n of some of the images, in pieces, again and again."""
Map = Callable[..., Iterator[Any]]
"""``map``, or that of a pool of threads."""
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
FOLDS = 5
_PIECE = 1024
"""Images; so few stay in the processor's caches from one multiplication to the next."""
_EXACT = {"maxiter": 1000, "ftol": 1e-10, "gtol": 1e-7, "maxcor": 20}
_ROUGH = {"maxiter": 50, "ftol": 1e-4, "gtol": 1e-4, "maxcor": 10}
"""Enough to rank strengths that lie a decade apart."""
_SMALL = 20_000
"""Up to so many images the features stand in memory, in float64, in the span of the images where that is smaller."""
_SHARDS = 32
"""Parts that are summed up one by one and then together, whatever the number of threads."""
_CROSS_VALIDATED = 5_000
"""The strength is chosen on at most so many images; the choice is coarse and the estimate good enough.

Weaker ones for more images gain little and take twice the passes (docs/log.md).
"""


class Held(NamedTuple):
    """Images that were held out once each: their positions M and, of one strength, their logits M K."""

    positions: Ints
    logits_MK: npt.NDArray[np.float32]


class Probe(NamedTuple):
    """``logits = x weight_KD^T + bias_K``; ``losses`` are the cross-validated ones by strength, ``held`` of this one.

    A strength that was given was not cross-validated: no losses, and nothing held out.
    """

    weight_KD: Floats
    bias_K: Floats
    strength: float
    losses: dict[float, float]
    held: Held | None


class Problem(NamedTuple):
    """Features and targets (n x K in [0, 1]) by position, one weight per image, and which loss."""

    rows: Rows
    targets: Callable[[Ints], Floats]
    weights_N: Floats
    multilabel: bool


def solve(problem: Problem, seed: int, strength: float | None = None, threads: int = 1) -> Probe:
    """The best linear head for ``problem``, at ``strength`` if that is known; ``seed`` decides the folds.

    ``problem`` is read from so many ``threads`` at once where it is large.
    """
    with threadpool_limits(limits=1), ThreadPoolExecutor(threads) as pool:  # BLAS' own threads wait for each other
        if len(problem.weights_N) <= _SMALL:
            return _solve(problem, seed, strength, np.float64, map)
        return _solve(problem, seed, strength, np.float32, pool.map)


def _solve(problem: Problem, seed: int, strength: float | None, precision: type[np.floating], over: Map) -> Probe:
    count = len(problem.weights_N)
    mean_D, scale, dimensions = _moments(problem.rows, count)

    def standard(positions: Ints) -> Features:
        x_ND: Features = problem.rows(positions).astype(precision, copy=False) - mean_D.astype(precision)
        return np.divide(x_ND, scale, out=x_ND)

    losses, held = ({}, {}) if strength is not None else cross_validate(standard, problem, seed, over)
    best = min(losses, key=lambda strength: (losses[strength], -strength)) if strength is None else strength
    positions = np.arange(count)
    path = {strength: _ROUGH for strength in STRENGTHS if strength > best}
    start = None
    if count > _SMALL:  # a few images show the way into the neighbourhood as well as all do
        few = held[best].positions if held else positions[:: -(-count // _CROSS_VALIDATED)]
        start = _along(path | {best: _ROUGH}, standard, problem, few, dimensions)[-1]
        path = {}
    weight_KD, bias_K = _along(path | {best: _EXACT}, standard, problem, positions, dimensions, start, over)[-1]
    weight_KD = weight_KD / scale
    return Probe(weight_KD, bias_K - weight_KD @ mean_D, best, losses, held.get(best))


def cross_validate(
    rows: Callable[[Ints], Features], problem: Problem, seed: int, over: Map = map
) -> tuple[dict[float, float], dict[float, Held]]:
    """Mean held-out loss of each strength, and the held-out logits themselves.

    Over folds stratified by class; ties of a class are cut at random by ``seed``.
    """
    rng = generator(seed, "order", 0)
    count = len(problem.weights_N)
    chosen = np.sort(rng.choice(count, size=min(count, _CROSS_VALIDATED), replace=False))
    targets_MK = problem.targets(chosen)
    fold_of = _stratified(targets_MK.argmax(axis=1), rng)
    logits = {strength: np.full(targets_MK.shape, np.nan, np.float32) for strength in STRENGTHS}

    def hold_out(fold: int) -> None:
        held, kept = chosen[fold_of == fold], chosen[fold_of != fold]
        if not len(held) or not len(kept):
            return
        held_ND = rows(held)
        along = _along(dict.fromkeys(STRENGTHS, _ROUGH), rows, problem, kept, held_ND.shape[1])
        for strength, (weight_KD, bias_K) in zip(STRENGTHS, along, strict=True):
            logits[strength][fold_of == fold] = held_ND @ weight_KD.T + bias_K

    list(over(hold_out, range(FOLDS)))
    seen = ~np.isnan(logits[STRENGTHS[0]]).any(axis=1)
    positions = chosen[seen]
    weights_M = problem.weights_N[positions]
    losses: dict[float, float] = {}
    for strength in STRENGTHS:
        losses_M, _ = _loss(logits[strength][seen].astype(np.float64), targets_MK[seen], multilabel=problem.multilabel)
        losses[strength] = float(weights_M @ losses_M / weights_M.sum())
    return losses, {strength: Held(positions, logits[strength][seen]) for strength in STRENGTHS}


def objective(
    parameters: Floats, shards: Sequence[Shard], strength: float, *, multilabel: bool, over: Map = map
) -> tuple[float, Floats]:
    """Value and gradient at ``parameters`` (K x (D + 1), flat, the bias last) over all images of ``shards``.

    Features are multiplied in their own precision, all else is float64.
    """
    sums = list(over(lambda shard: _sums(parameters, shard(), multilabel=multilabel), shards))
    value, gradient, weight = (sum(terms) for terms in zip(*sums, strict=True))
    gradient /= weight
    weight_KD = parameters.reshape(gradient.shape)[:, :-1]
    gradient[:, :-1] += strength * weight_KD
    return value / weight + 0.5 * strength * float((weight_KD**2).sum()), gradient.ravel()


def _sums(
    parameters: Floats, pieces: Iterator[tuple[Features, Floats, Floats]], *, multilabel: bool
) -> tuple[float, Floats, float]:
    """Weighted losses, their gradient K x (D + 1) and weights, each summed up."""
    value, weight = 0.0, 0.0
    gradient = np.zeros(0)
    for x_ND, targets_NK, weights_N in pieces:
        matrix = parameters.reshape(targets_NK.shape[1], -1)
        logits_NK = x_ND @ matrix[:, :-1].T.astype(x_ND.dtype) + matrix[:, -1]
        losses_N, slopes_NK = _loss(logits_NK, targets_NK, multilabel=multilabel)
        slopes_NK *= weights_N[:, None]
        if not gradient.size:
            gradient = np.zeros_like(matrix)
        gradient[:, :-1] += slopes_NK.T.astype(x_ND.dtype) @ x_ND
        gradient[:, -1] += slopes_NK.sum(axis=0)
        value += float(weights_N @ losses_N)
        weight += float(weights_N.sum())
    return value, gradient, weight


def _along(
    strengths: Mapping[float, dict[str, float]],
    rows: Callable[[Ints], Features],
    problem: Problem,
    positions: Ints,
    dimensions: int,
    start: tuple[Floats, Floats] | None = None,
    over: Map = map,
) -> list[tuple[Floats, Floats]]:
    """Solutions (weight K D, bias K) of ``strengths`` (to what precision), strongest first, each begun at the one before.

    The first begins at ``start``, for images that are too many for a basis of their own, or at zero.
    """
    shards, basis_RD = _shards(rows, problem, positions)
    size = dimensions if basis_RD is None else len(basis_RD)
    num_classes = problem.targets(positions[:1]).shape[1]
    point = np.zeros(num_classes * (size + 1))
    if start is not None:
        assert basis_RD is None
        point = np.column_stack(start).ravel()
    found: list[tuple[Floats, Floats]] = []
    for strength, options in strengths.items():
        point = minimize(
            lambda parameters, strength=strength: objective(
                parameters, shards, strength, multilabel=problem.multilabel, over=over
            ),
            point,
            jac=True,
            method="L-BFGS-B",
            options=options,
        ).x
        matrix = point.reshape(num_classes, -1)
        weight_KD = matrix[:, :-1] if basis_RD is None else matrix[:, :-1] @ basis_RD
        found.append((weight_KD.copy(), matrix[:, -1].copy()))
    return found


def _shards(
    rows: Callable[[Ints], Features], problem: Problem, positions: Ints
) -> tuple[Sequence[Shard], Features | None]:
    """The data, and the basis it is expressed in, if any."""
    if len(positions) > _SMALL:

        def stream(some: Ints) -> Iterator[tuple[Features, Floats, Floats]]:
            for start in range(0, len(some), _PIECE):
                part = some[start : start + _PIECE]
                yield rows(part), problem.targets(part), problem.weights_N[part]

        return [partial(stream, some) for some in np.array_split(positions, _SHARDS)], None
    x_ND, targets_NK = rows(positions), problem.targets(positions)
    basis_RD = None
    if x_ND.shape[0] < x_ND.shape[1]:
        basis_RD = np.linalg.qr(x_ND.T)[0].T
        x_ND = x_ND @ basis_RD.T
    return [lambda: iter([(x_ND, targets_NK, problem.weights_N[positions])])], basis_RD


def _loss(logits_NK: Floats, targets_NK: Floats, *, multilabel: bool) -> tuple[Floats, Floats]:
    """Loss of each image, and its derivative by the logits."""
    if multilabel:
        losses_N = (np.logaddexp(0.0, logits_NK) - targets_NK * logits_NK).mean(axis=1)
        return losses_N, (expit(logits_NK) - targets_NK) / logits_NK.shape[1]
    log_probabilities_NK = log_softmax(logits_NK, axis=1)
    return -(targets_NK * log_probabilities_NK).sum(axis=1), np.exp(log_probabilities_NK) - targets_NK


def _moments(rows: Rows, count: int) -> tuple[Floats, float, int]:
    """Mean feature, and the root mean square distance from it, in two passes over pieces."""
    starts = range(0, count, _PIECE)
    parts = [np.arange(start, min(start + _PIECE, count)) for start in starts]
    mean_D = sum(rows(part).sum(axis=0, dtype=np.float64) for part in parts) / count
    assert isinstance(mean_D, np.ndarray)
    squares = sum(float(((rows(part) - mean_D) ** 2).sum()) for part in parts)
    return mean_D, max(float(np.sqrt(squares / count)), 1e-12), len(mean_D)


def _stratified(classes_N: Ints, rng: np.random.Generator) -> Ints:
    fold_of = np.empty(len(classes_N), dtype=np.int64)
    offset = 0
    for number in np.unique(classes_N):
        members = rng.permutation(np.flatnonzero(classes_N == number))
        fold_of[members] = (np.arange(len(members)) + offset) % FOLDS
        offset += len(members)
    return fold_of
