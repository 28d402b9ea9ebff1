"""Augmented images: different in every worker and every epoch, and the same whatever the number of workers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from finetune.data.dataset import ImageRows
from finetune.data.loader import KeyedLoader, Position
from finetune.data.sampler import KeyedBatches
from tests.conftest import write_image_folder

COUNT = 12


class Noise:
    """An augmentation that shows its seed in every pixel."""

    min_source_px = 8

    def __call__(self, image_HWC: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
        return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def images_of(root: Path, epoch: int, workers: int) -> dict[int, str]:
    """Digest of each row's augmented image in ``epoch``; all files have the same pixels."""
    paths = sorted(root.rglob("*.png"))
    table = cast("Any", SimpleNamespace(path=paths.__getitem__, targets=np.zeros(COUNT, dtype=np.int64)))
    preprocessing = cast("Any", SimpleNamespace(size=(8, 8), background=(255, 255, 255), min_source_px=8))
    batches = KeyedBatches(np.arange(COUNT), None, 2, 0, 0, 1, sampler="shuffle")
    images = ImageRows(table, preprocessing, Noise(), seed=0)
    loader = KeyedLoader(images, batches, lambda: Position(epoch, 0), lambda _: None, workers)
    return {
        int(row): hashlib.sha256(image_CHW.numpy().tobytes()).hexdigest()
        for batch in loader
        for row, image_CHW in zip(batch.indices, batch.inputs, strict=True)
    }


def test_augmented_images_differ_between_workers_and_epochs_and_not_with_the_number_of_workers(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "images", classes=("one",), n=COUNT, size=(16, 16))
    first = next(root.rglob("*.png")).read_bytes()
    for path in root.rglob("*.png"):
        path.write_bytes(first)
    epochs = [images_of(root, epoch, workers=2) for epoch in range(2)]
    assert len({digest for epoch in epochs for digest in epoch.values()}) == 2 * COUNT
    assert epochs == [images_of(root, epoch, workers=0) for epoch in range(2)]
