"""Which images a person should look at first; pure functions of the predictions.

Confident mistakes show what the model has learned wrongly or who labelled wrongly; the least certain show where more
data helps; the best of each class show what the model takes the class to be.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from finetune.metrics.predictions import Predictions

Rows = list[int]


def confident_mistakes(predictions: Predictions, most: int) -> Rows:
    """Wrong images, the most confident first."""
    wrong_N = predictions.labelled_N & ~predictions.correct_N
    return _first(np.argsort(-predictions.confidence_N, kind="stable"), wrong_N, most)


def least_certain(predictions: Predictions, most: int) -> Rows:
    """Images of the lowest confidence, right or wrong."""
    return _first(np.argsort(predictions.confidence_N, kind="stable"), np.ones_like(predictions.labelled_N), most)


def best_of_each_class(predictions: Predictions, each: int) -> dict[str, Rows]:
    """For each class the right images of the highest probability; classes without a right image are left out."""
    found: dict[str, Rows] = {}
    for k, name in enumerate(predictions.classes):
        right_N = predictions.correct_N & predictions.decisions_NK[:, k]
        rows = _first(np.argsort(-predictions.probabilities_NK[:, k], kind="stable"), right_N, each)
        if rows:
            found[name] = rows
    return found


def by_cell(predictions: Predictions) -> dict[tuple[int, int], Rows]:
    """Images of each filled cell (true, predicted) of the confusion matrix, the most confident first."""
    predicted_N = predictions.logits_NK.argmax(axis=1)
    found: dict[tuple[int, int], Rows] = {}
    for row in np.argsort(-predictions.confidence_N, kind="stable"):
        if predictions.labelled_N[row]:
            found.setdefault((int(predictions.targets[row]), int(predicted_N[row])), []).append(int(row))
    return found


def round_robin(cells: dict[tuple[int, int], Rows]) -> Iterator[int]:
    """Images of all cells in turns, mistakes first, so that a limited number shows something of each."""
    wrong = [rows for (true, predicted), rows in cells.items() if true != predicted]
    right = [rows for (true, predicted), rows in cells.items() if true == predicted]
    for group in (wrong, right):
        for turn in range(max(map(len, group), default=0)):
            yield from (rows[turn] for rows in group if turn < len(rows))


def _first(order_N: npt.NDArray[np.int64], keep_N: npt.NDArray[np.bool_], most: int) -> Rows:
    return [int(row) for row in order_N[keep_N[order_N]][:most]]
