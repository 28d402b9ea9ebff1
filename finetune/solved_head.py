"""Puts the solution of ``finetune.probe`` into a network's linear head, from stored features.

Cosine and MLP heads and focal loss are no convex problem; their head is trained in the schedule's epochs instead.
"""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from finetune.cache.keys import PLAIN
from finetune.cache.store import Features
from finetune.candidates import Floats, HeldOut, scores
from finetune.data.module import ImageData
from finetune.head.linear import LinearHead
from finetune.loss.binary_cross_entropy import BinaryCrossEntropy
from finetune.loss.cross_entropy import CrossEntropy
from finetune.model import ImageClassifier
from finetune.probe import Ints, Problem, solve

log = logging.getLogger(__name__)


class Solved(NamedTuple):
    """The solved head's cross-validated score (None where the strength was known), and the strength of its penalty."""

    held_out: HeldOut | None
    strength: float


def is_convex(head: nn.Module, loss: nn.Module) -> bool:
    """Whether the head's weights have one best value on given features."""
    return isinstance(head, LinearHead) and isinstance(loss, BinaryCrossEntropy | CrossEntropy)


def solve_head(
    model: ImageClassifier, data: ImageData, seed: int, monitor: str, strength: float | None = None
) -> Solved:
    """Solve the head on the training images' features, stored ones where the cache can; at ``strength`` if it is known.

    Class weights, label smoothing and logit adjustment are those of the run's loss; the sampler plays no part. With
    offsets ``o``, the best ``b`` of ``loss(x W + b + o)`` is that of ``loss(x W + b)`` less ``o``, exactly, as the bias is not
    penalised; so are the held-out logits, and the strength is the same.
    """
    table, head, loss = data.table, model.network.head, model.loss
    assert isinstance(head, LinearHead)
    assert isinstance(loss, BinaryCrossEntropy | CrossEntropy)
    offsets_K = loss.offsets_K.double().cpu().numpy() if isinstance(loss, CrossEntropy) else 0.0
    rows = table.rows("train")
    features = None if model.reuse is None else model.reuse.pooled(rows)
    if features is None:
        features = _live_features(model, data, rows)
    started = time.monotonic()
    present = np.flatnonzero(features.present_N)
    targets = table.targets[rows[present]]
    multilabel = table.task == "multilabel"
    num_classes, smoothing = len(table.classes), loss.label_smoothing
    weights_N = np.ones(len(present)) if multilabel else loss.weights_K.double().cpu().numpy()[targets]

    def read(positions: Ints) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return features.take(present[positions]).float().numpy()

    def smooth(positions: Ints) -> Floats:
        hard = targets[positions].astype(np.float64) if multilabel else np.eye(num_classes)[targets[positions]]
        return hard * (1 - smoothing) + smoothing * (0.5 if multilabel else 1.0 / num_classes)

    probe = solve(Problem(read, smooth, weights_N, multilabel), seed, strength, torch.get_num_threads())
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(probe.weight_KD))
        head.linear.bias.copy_(torch.from_numpy(probe.bias_K - offsets_K))
    seconds = time.monotonic() - started
    how = "by cross-validation" if strength is None else "as found"
    log.info("head      solved on %d images, strength %g %s, %.1f s", len(rows), probe.strength, how, seconds)
    if probe.held is None:
        return Solved(None, probe.strength)
    held_N = scores(probe.held.logits_MK - offsets_K, targets[probe.held.positions], monitor)
    return Solved(HeldOut(float(held_N.mean()), len(held_N)), probe.strength)


def _live_features(model: ImageClassifier, data: ImageData, rows: Ints) -> Features:
    model.eval()
    piece_N = np.full(len(rows), -1, dtype=np.int32)
    row_N = np.zeros(len(rows), dtype=np.int64)
    values: list[torch.Tensor] = []
    done = 0
    with torch.inference_mode():
        for readable, images_BCHW in data.image_source().images(rows, PLAIN):
            inputs_BCHW = data.preprocessing.normalize(images_BCHW.to(model.device))
            values.append(model.network.backbone(inputs_BCHW).cpu())
            positions = np.searchsorted(rows, readable)
            piece_N[positions] = 0
            row_N[positions] = np.arange(done, done + len(readable))
            done += len(readable)
    return Features((torch.cat(values),), piece_N, row_N)
