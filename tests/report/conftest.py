"""Made predictions with pictures: what a report needs, without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from finetune.metrics import evaluate
from finetune.metrics.predictions import Predictions
from finetune.report.subject import Subject


def noise(row: int) -> np.ndarray:
    """A picture that compresses as badly as any: noise over a gradient."""
    rng = np.random.default_rng(row)
    gradient = np.linspace(0, 160, 160, dtype=np.float32)[None, :, None]
    return np.clip(gradient + rng.normal(40, 40, (160, 160, 3)), 0, 255).astype(np.uint8)


def make_subject(num_images: int = 60, num_classes: int = 4, *, multilabel: bool = False, **changes: Any) -> Subject:
    """Scores that are right about three times in four."""
    rng = np.random.default_rng(0)
    classes = changes.pop("classes", tuple(f"class {k}" for k in range(num_classes)))
    logits_NK = rng.normal(size=(num_images, num_classes)).astype(np.float32)
    targets: np.ndarray
    if multilabel:
        targets = (rng.random((num_images, num_classes)) < 0.3).astype(np.float32)
        logits_NK += 3 * targets - 1.5
    else:
        targets = rng.integers(0, num_classes, num_images)
        logits_NK[np.arange(num_images), targets] += 2.0 + np.log(num_classes)
    paths = tuple(f"{row:05d}.jpg" for row in range(num_images))
    predictions = Predictions(paths, logits_NK, targets, classes, changes.pop("temperature", 1.3))

    def maps(images: list[np.ndarray], numbers: list[int]) -> np.ndarray:
        return np.stack([np.eye(160, dtype=np.float32) for _ in images])

    fields = {"title": "made", "split": "test", "read": noise, "maps": maps} | changes
    return Subject(predictions=predictions, evaluation=evaluate(predictions, resamples=50), **fields)


@pytest.fixture
def subject() -> Callable[..., Subject]:
    """``subject(num_images, num_classes, multilabel=, ...)``."""
    return make_subject
