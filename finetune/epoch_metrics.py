"""An epoch's validation figures, counted on the device and summed over processes by torchmetrics.

The counts become figures in ``finetune.metrics``, the same code as in ``evaluate``, so that the monitor of a run and its
final result cannot mean different things.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from finetune.metrics.classification import ClassCounts, averages
from finetune.metrics.summary import TOP, result

_REPORTED = ("accuracy", "balanced_accuracy", "macro_f1")
_REPORTED_MULTILABEL = ("map", "f1", "accuracy")


class SingleLabelMetrics(Metric):
    """Accuracy, balanced accuracy, macro F1 and, with more than five classes, top-5 accuracy."""

    full_state_update = False
    support_K: Tensor
    predicted_K: Tensor
    correct_K: Tensor
    in_top: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("support_K", "predicted_K", "correct_K"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("in_top", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits_BK: Tensor, targets_B: Tensor) -> None:
        """Count one batch."""
        predictions_B = logits_BK.argmax(dim=1)
        self.support_K += torch.bincount(targets_B, minlength=self.num_classes)
        self.predicted_K += torch.bincount(predictions_B, minlength=self.num_classes)
        self.correct_K += torch.bincount(targets_B[predictions_B == targets_B], minlength=self.num_classes)
        if self.num_classes > TOP:
            self.in_top += (logits_BK.topk(TOP, dim=1).indices == targets_B[:, None]).sum()

    def compute(self) -> dict[str, float]:
        """The figures by name."""
        counts = [state.cpu().numpy() for state in (self.support_K, self.predicted_K, self.correct_K)]
        figures = averages(ClassCounts(*counts))
        found = {name: figures[name] for name in _REPORTED}
        if self.num_classes > TOP:
            found["top5_accuracy"] = float(self.in_top / self.support_K.sum())
        return found


class MultiLabelMetrics(Metric):
    """Mean average precision, macro F1 at 0.5 and the share of images with every label right; keeps all scores."""

    full_state_update = False
    logits: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, logits_BK: Tensor, targets_BK: Tensor) -> None:
        """Keep one batch."""
        self.logits.append(logits_BK)
        self.targets.append(targets_BK)

    def compute(self) -> dict[str, float]:
        """The figures by name."""
        figures = result(dim_zero_cat(self.logits).cpu().numpy(), dim_zero_cat(self.targets).cpu().numpy())
        return {name: figures[name] for name in _REPORTED_MULTILABEL if name in figures}


def epoch_metrics(task: Literal["multiclass", "multilabel"], num_classes: int) -> Metric:
    """The figures that are followed through training."""
    return SingleLabelMetrics(num_classes) if task == "multiclass" else MultiLabelMetrics()
