"""What a model said about some images, as plain data: the input of every metric, of the report and of predictions.csv.

``logits_NK`` are the plain scores; temperature and thresholds are applied here, in one place, so that evaluate, predict
and every exported artefact give the same probabilities and decisions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.metrics.probability import decide, sigmoid, softmax

LABEL_SEPARATOR = "|"
"""Between the labels of one image in ``label`` and ``prediction`` of multi-label data."""


@dataclass(frozen=True)
class Predictions:
    """Scores of N images for K classes.

    ``paths``: as in predictions.csv. ``targets``: class numbers N, or 0/1 N K for multi-label; -1 where unknown.
    """

    paths: tuple[str, ...]
    logits_NK: npt.NDArray[np.float32]
    targets: npt.NDArray[Any]
    classes: tuple[str, ...]
    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None

    @property
    def is_multilabel(self) -> bool:
        """Several classes per image."""
        return self.targets.ndim == 2

    @cached_property
    def probabilities_NK(self) -> npt.NDArray[np.float64]:
        """Calibrated probabilities in [0, 1]."""
        to_probability = sigmoid if self.is_multilabel else softmax
        return to_probability(self.logits_NK, temperature=self.temperature)

    @cached_property
    def decisions_NK(self) -> npt.NDArray[np.bool_]:
        """The classes given to each image: exactly one, or for multi-label any number."""
        if self.is_multilabel:
            return decide(self.probabilities_NK, self.thresholds)
        chosen_NK = np.zeros(self.logits_NK.shape, dtype=np.bool_)
        chosen_NK[np.arange(len(chosen_NK)), self.logits_NK.argmax(axis=1)] = True
        return chosen_NK

    @cached_property
    def labelled_N(self) -> npt.NDArray[np.bool_]:
        """Which images have a known target."""
        known: npt.NDArray[np.bool_] = self.targets >= 0
        labelled_N: npt.NDArray[np.bool_] = np.all(known, axis=1) if self.is_multilabel else known
        return labelled_N

    @cached_property
    def correct_N(self) -> npt.NDArray[np.bool_]:
        """Which images are labelled and got exactly their label or labels."""
        if self.is_multilabel:
            right_N = (self.decisions_NK == (self.targets >= 0.5)).all(axis=1)
        else:
            right_N = self.logits_NK.argmax(axis=1) == self.targets
        both_N: npt.NDArray[np.bool_] = right_N & self.labelled_N
        return both_N

    @cached_property
    def confidence_N(self) -> npt.NDArray[np.float64]:
        """Probability of the decision: of the chosen class; for multi-label of the least certain yes or no."""
        if self.is_multilabel:
            certainty_NK = np.where(self.decisions_NK, self.probabilities_NK, 1.0 - self.probabilities_NK)
            return np.asarray(certainty_NK.min(axis=1))
        return np.asarray(self.probabilities_NK.max(axis=1))

    def names(self, chosen_K: npt.NDArray[np.bool_]) -> str:
        """The names of the marked classes, joined."""
        return LABEL_SEPARATOR.join(self.classes[k] for k in np.flatnonzero(chosen_K))

    def label(self, row: int) -> str:
        """The true label or labels of an image; empty where unknown."""
        if not self.labelled_N[row]:
            return ""
        if self.is_multilabel:
            return self.names(self.targets[row] >= 0.5)
        return self.classes[int(self.targets[row])]

    def prediction(self, row: int) -> str:
        """The label or labels given to an image."""
        return self.names(self.decisions_NK[row])

    def select(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Predictions:
        """The same for some of the images."""
        kept = np.arange(len(self.paths))[rows]
        paths = tuple(self.paths[i] for i in kept)
        return replace(self, paths=paths, logits_NK=self.logits_NK[kept], targets=self.targets[kept])

    def in_path_order(self) -> Predictions:
        """The same, sorted by path."""
        return self.select(np.array(sorted(range(len(self.paths)), key=self.paths.__getitem__), dtype=np.int64))
