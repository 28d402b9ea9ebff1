"""The images of a table through a model: labelled predictions in path order, and what could not be read.

Shared by evaluate, and by train for its final figures and its report. Cost: the forward passes; files are decoded
meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn

from finetune.classifier import Classifier
from finetune.data.table import Table
from finetune.errors import DataError, ImageError
from finetune.metrics.predictions import Predictions
from finetune.preprocessing import Preprocessing
from finetune.report.subject import Image, Maps
from finetune.views import Tta


class Measured(NamedTuple):
    """Predictions of the readable images; ``paths`` are relative to the table's root."""

    predictions: Predictions
    unreadable: tuple[ImageError, ...]


def measure(
    classifier: Classifier,
    table: Table,
    rows: npt.NDArray[np.int64],
    *,
    batch_size: int = 32,
    num_workers: int | None = None,
    tta: Tta = "none",
    advance: Callable[[int], object] = lambda _: None,
) -> Measured:
    """Run ``rows`` of the table through the model. Raises ``DataError`` when not one of them can be read."""
    ordered = sorted((int(row) for row in rows), key=table.relative)
    paths = [table.path(row) for row in ordered]
    scored: list[npt.NDArray[np.int64]] = []
    logits: list[npt.NDArray[np.float32]] = []
    unreadable: list[ImageError] = []
    for chunk in classifier.scores(paths, batch_size=batch_size, num_workers=num_workers, tta=tta):
        scored.append(chunk.rows)
        logits.append(chunk.logits_BK)
        unreadable.extend(chunk.unreadable)
        advance(len(chunk.rows) + len(chunk.unreadable))
    kept = [ordered[position] for position in np.concatenate(scored)] if scored else []
    if not kept:
        raise DataError(f"{table.root}: none of {len(ordered)} images could be read" + _first(unreadable))
    return Measured(labelled(table, np.array(kept), np.concatenate(logits), classifier), tuple(unreadable))


def labelled(
    table: Table, rows: npt.NDArray[np.int64], logits_NK: npt.NDArray[np.float32], classifier: Classifier
) -> Predictions:
    """Scores of some rows of a table as predictions in path order."""
    description = classifier.description
    return Predictions(
        tuple(table.relative(int(row)) for row in rows),
        logits_NK,
        table.targets[rows],
        description.classes,
        description.temperature,
        description.thresholds,
    ).in_path_order()


def reader(classifier: Classifier, table: Table, predictions: Predictions) -> Callable[[int], Image]:
    """For the report: the network's input for a row of the predictions."""

    def read(row: int) -> Image:
        image_HWC = classifier.read(table.root / predictions.paths[row])
        return classifier.description.preprocessing.resize_crop(image_HWC)

    return read


def gradcam_maps(network: nn.Module, preprocessing: Preprocessing) -> Maps:
    """For the report: Grad-CAM maps of a network's inputs for one class each."""
    import torch

    from finetune.report.gradcam import gradcam

    def maps(images: list[Image], class_numbers: list[int]) -> npt.NDArray[np.float32] | None:
        device = next(network.parameters()).device
        images_BCHW = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
        return gradcam(network.eval(), preprocessing.normalize(images_BCHW), class_numbers)

    return maps


def _first(unreadable: list[ImageError]) -> str:
    return f" (first: {unreadable[0]})" if unreadable else ""
