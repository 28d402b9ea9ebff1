"""What else could stand on frozen features: other heads for few images a class, other ways with uneven classes.

    python -m bench.accuracy.heads few       # solved logistic head, nearest class mean, cosine, and the choice by folds
    python -m bench.accuracy.heads uneven    # plain loss, balanced weights, logit adjustment

Accuracy (balanced where classes are uneven) on the test images at 128 px, mean of four draws of the training images.
Sources: Snell et al. 2017 (arXiv:1703.05175); Gidaris and Komodakis 2018 (arXiv:1804.09458); Menon et al. 2021
(arXiv:2007.07314).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from bench.accuracy.__main__ import ROOT
from bench.accuracy.datasets import Dataset, write
from bench.accuracy.rival import Task, features
from finetune.probe import Probe, Problem, solve

DRAWS = 4
FOLDS = 5
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Head = tuple[Floats, Floats]
"""Weight K D and bias K."""


class Split(NamedTuple):
    """Features and labels to learn from and to test on."""

    x_ND: Floats
    labels_N: Ints
    test_ND: Floats
    test_N: Ints


def load(dataset: Dataset) -> Split:
    """Train and test of seed 1."""
    task = Task(write(dataset, 1, ROOT / "data"), 1, 128, 32, 1)
    (x_ND, labels_N), (test_ND, test_N) = features(task, "train"), features(task, "test")
    return Split(x_ND.astype(np.float64), labels_N, test_ND.astype(np.float64), test_N)


def solved(x_ND: Floats, labels_N: Ints, weights_N: Floats | None = None) -> Probe:
    """This package's solved head."""
    targets_NK = np.eye(int(labels_N.max()) + 1)[labels_N]
    weights_N = np.ones(len(labels_N)) if weights_N is None else weights_N
    return solve(
        Problem(lambda rows: x_ND[rows].astype(np.float32), lambda rows: targets_NK[rows], weights_N, False), 0
    )


def nearest_mean(x_ND: Floats, labels_N: Ints) -> Head:
    """Minus half the squared distance from each class mean, but for a term that all classes share."""
    means_KD = np.stack([x_ND[labels_N == k].mean(axis=0) for k in np.unique(labels_N)])
    return means_KD, -(means_KD**2).sum(axis=1) / 2


def cosine(x_ND: Floats, labels_N: Ints) -> Head:
    """Directions of the mean normalised features; the length of an image's own features changes no decision."""
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    means_KD, bias_K = nearest_mean(unit_ND, labels_N)
    return means_KD / np.linalg.norm(means_KD, axis=1, keepdims=True), 0 * bias_K


def few(data: Split, per_class: int) -> dict[str, float]:
    """Test accuracy of each head, and of the one with the least cross-validated loss."""
    found: dict[str, list[float]] = {"logistic": [], "nearest mean": [], "cosine": [], "chosen by folds": []}
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        of_classes = [np.flatnonzero(data.labels_N == k) for k in np.unique(data.labels_N)]
        kept = np.concatenate([rng.permutation(rows)[:per_class] for rows in of_classes])
        x_ND, labels_N = data.x_ND[kept], data.labels_N[kept]
        mean_D = x_ND.mean(axis=0)
        scale = np.sqrt(((x_ND - mean_D) ** 2).sum() / len(x_ND))
        probe = solved(x_ND, labels_N)
        losses = {"logistic": probe.losses[probe.strength]}
        found["logistic"].append(_right(data.test_ND @ probe.weight_KD.T + probe.bias_K, data.test_N))
        for name, make in (("nearest mean", nearest_mean), ("cosine", cosine)):
            weight_KD, bias_K = make((x_ND - mean_D) / scale, labels_N)
            found[name].append(_right((data.test_ND - mean_D) / scale @ weight_KD.T + bias_K, data.test_N))
            losses[name] = _held_out_loss(make, (x_ND - mean_D) / scale, labels_N)
        found["chosen by folds"].append(found[min(losses, key=lambda name: losses[name])][-1])
    return {name: float(np.mean(values)) for name, values in found.items()}


def uneven(data: Split, ratio: int) -> dict[str, float]:
    """Balanced test accuracy where half of the classes, at random, have ``ratio`` times fewer images."""
    found: dict[str, list[float]] = {"plain": [], "balanced weights": [], "logit adjustment": []}
    num_classes = int(data.labels_N.max()) + 1
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        rare = set(rng.permutation(num_classes)[: num_classes // 2].tolist())
        of_classes = [rng.permutation(np.flatnonzero(data.labels_N == k)) for k in range(num_classes)]
        kept = np.concatenate([rows[: len(rows) // (ratio if k in rare else 1)] for k, rows in enumerate(of_classes)])
        x_ND, labels_N = data.x_ND[kept], data.labels_N[kept]
        counts_K = np.bincount(labels_N)
        plain = solved(x_ND, labels_N)
        weighted = solved(x_ND, labels_N, (len(labels_N) / (num_classes * counts_K))[labels_N])
        logits_NK = data.test_ND @ plain.weight_KD.T + plain.bias_K
        found["plain"].append(_balanced(logits_NK, data.test_N))
        found["logit adjustment"].append(_balanced(logits_NK - np.log(counts_K), data.test_N))
        found["balanced weights"].append(_balanced(data.test_ND @ weighted.weight_KD.T + weighted.bias_K, data.test_N))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _held_out_loss(make: Callable[[Floats, Ints], Head], x_ND: Floats, labels_N: Ints) -> float:
    """At the best of fifteen scales of the logits, which says nothing against the head."""
    fold_N = np.arange(len(labels_N)) % FOLDS  # rows stand class by class, so no fold takes a whole one
    logits_NK = np.zeros((len(labels_N), int(labels_N.max()) + 1))
    for fold in range(FOLDS):
        held_N = fold_N == fold
        weight_KD, bias_K = make(x_ND[~held_N], labels_N[~held_N])
        logits_NK[held_N] = x_ND[held_N] @ weight_KD.T + bias_K
    rows = np.arange(len(labels_N))
    return float(min(-log_softmax(logits_NK * s, axis=1)[rows, labels_N].mean() for s in np.logspace(-1, 2.5, 15)))


def _right(logits_NK: Floats, labels_N: Ints) -> float:
    return float((logits_NK.argmax(axis=1) == labels_N).mean())


def _balanced(logits_NK: Floats, labels_N: Ints) -> float:
    right_N = logits_NK.argmax(axis=1) == labels_N
    return float(np.mean([right_N[labels_N == k].mean() for k in np.unique(labels_N)]))


def main() -> None:
    """Print one line per set and size."""
    question = sys.argv[1] if len(sys.argv) == 2 else ""
    if question not in ("few", "uneven"):
        raise SystemExit("say what: python -m bench.accuracy.heads few|uneven")
    digits = Dataset("digits", 50)
    plans = [(digits, few, n) for n in (4, 8, 12)] + [(Dataset("clipart", None), few, n) for n in (4, 8, 12)]
    for dataset, measure, size in plans if question == "few" else [(digits, uneven, ratio) for ratio in (3, 10)]:
        found = measure(load(dataset), size)
        print(f"{dataset} {size:>3}: " + "  ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
