"""Whether an artefact behaves as the model did: the same images through both, compared class by class, by name.

The artefact's side is computed with what its own file says (preprocessing, class order, temperature), so that a wrong
mean, swapped channels or another class order shows up as a difference. fp32 must agree on every probability and every
decision; fp16 and int8 may lose a stated and bounded part of the accuracy. A decision counts as changed only when the
model itself was not undecided, within the tolerance, between the two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.errors import ExportError
from finetune.metrics.predictions import Predictions


@dataclass(frozen=True)
class Parity:
    """Figures over ``images`` images; differences are of calibrated probabilities, accuracies in [0, 1]."""

    images: int
    max_difference: float
    mean_difference: float
    agreement: float
    """Share of equal decisions (top-1; multi-label: every yes and no)."""
    changed: int
    """Decisions that differ although the model was not undecided."""
    accuracy_model: float | None
    """None when no image has a label."""
    accuracy_artefact: float | None

    @property
    def accuracy_drop(self) -> float:
        """What the artefact lost; negative when it gained."""
        if self.accuracy_model is None or self.accuracy_artefact is None:
            return 0.0
        return self.accuracy_model - self.accuracy_artefact

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for metadata.json."""
        return asdict(self)


def compare(model: Predictions, artefact: Predictions, *, tolerance: float) -> Parity:
    """Both sides of the same images, in the same order; raises ``ExportError`` when their classes are not the same."""
    if set(model.classes) != set(artefact.classes):
        only = sorted(set(model.classes) ^ set(artefact.classes))
        raise ExportError(f"the artefact has other classes than the model: {', '.join(only[:5])} on one side only")
    if not len(model.paths):
        raise ExportError("parity needs at least one image; give data.path=DIR with images")
    columns = [artefact.classes.index(name) for name in model.classes]
    expected_NK, got_NK = model.probabilities_NK, artefact.probabilities_NK[:, columns]
    decided_NK = artefact.decisions_NK[:, columns]
    difference_NK = np.abs(expected_NK - got_NK)
    if not np.isfinite(got_NK).all():
        difference_NK = np.where(np.isfinite(difference_NK), difference_NK, np.inf)
    differs_NK = model.decisions_NK != decided_NK
    if not model.is_multilabel:
        differs_N = differs_NK.any(axis=1)
        margin_N = expected_NK.max(axis=1) - expected_NK[np.arange(len(got_NK)), decided_NK.argmax(axis=1)]
        agreement, changed = 1.0 - differs_N.mean(), int((differs_N & (margin_N > tolerance)).sum())
    else:
        thresholds_K = np.asarray(model.thresholds if model.thresholds is not None else 0.5)
        decided = np.abs(expected_NK - thresholds_K) > tolerance
        agreement, changed = 1.0 - differs_NK.mean(), int((differs_NK & decided).sum())
    return Parity(
        images=len(model.paths),
        max_difference=float(difference_NK.max()),
        mean_difference=float(difference_NK.mean()),
        agreement=float(agreement),
        changed=changed,
        accuracy_model=_accuracy(model, model.decisions_NK),
        accuracy_artefact=_accuracy(model, decided_NK),
    )


def check(parity: Parity, *, max_difference: float | None, max_accuracy_drop: float | None, title: str) -> None:
    """Raise ``ExportError`` with the figures when the artefact does not behave as the model did."""
    problems = []
    if max_difference is not None:
        if not parity.max_difference <= max_difference:
            problems.append(f"probabilities differ by up to {parity.max_difference:.2g} (at most {max_difference:g})")
        if parity.changed:
            problems.append(f"{parity.changed} decisions differ (none may)")
    if max_accuracy_drop is not None and parity.accuracy_model is None:
        problems.append("no image has a label, so the loss in accuracy cannot be bounded (data.path=DIR with classes)")
    if max_accuracy_drop is not None and not parity.accuracy_drop <= max_accuracy_drop:
        problems.append(
            f"accuracy falls from {parity.accuracy_model:.4f} to {parity.accuracy_artefact:.4f} (at most "
            f"exporter.max_accuracy_drop={max_accuracy_drop:g} less)"
        )
    if problems:
        raise ExportError(
            f"{title} does not behave as the model did on {parity.images} validation images: {'; '.join(problems)}. "
            "Nothing was kept"
        )


def _accuracy(model: Predictions, decided_NK: npt.NDArray[np.bool_]) -> float | None:
    """Share of right decisions among the labelled images: images, or for multi-label every yes and no."""
    known_N = model.labelled_N
    if not known_N.any():
        return None
    if model.is_multilabel:
        return float((decided_NK == (model.targets >= 0.5))[known_N].mean())
    return float((decided_NK.argmax(axis=1) == model.targets)[known_N].mean())
