"""Rows that compare loaders alone: files to normalised batches by decoding, random crop to 224 px, flip; without a network."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from bench.bare import BATCH, augment_with_albumentations, augment_with_torchvision
from bench.measure import alternate, seconds
from bench.table import Row


def loaders(large: Path, small: Path, repeats: int) -> Iterator[Row]:
    """This package's images, batches and normalisation against Pillow and torchvision v2, or albumentations, in turn.

    Both on one thread, as torch runs in the worker processes of a loader.
    """
    import torch
    from torch.utils.data import DataLoader

    from finetune.data.dataset import ImageRows, collate
    from finetune.data.folder import FolderData
    from finetune.preprocessing import Preprocessing
    from finetune.transform.light import Light

    preprocessing = Preprocessing()
    light = Light(preprocessing, min_area=0.35)

    def ours(folder: Path, count: int) -> None:
        images = ImageRows(FolderData(0, path=str(folder), val_fraction=0.0).load(), preprocessing, light, 0)
        keys = [(0, row) for row in range(count)]
        seen = 0
        for batch in DataLoader(images, batch_size=BATCH, sampler=keys, collate_fn=collate):  # type: ignore[arg-type]
            seen += len(preprocessing.normalize(batch.inputs))
        assert seen == count

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sides = {"torchvision v2": augment_with_torchvision, "albumentations": augment_with_albumentations}
    for name, folder, count, other, bar in (
        ("12", large, 12, "torchvision v2", ">= 3"),
        ("0.1", small, 192, "torchvision v2", ">= 1.5"),
        ("12", large, 12, "albumentations", ">= 1"),
    ):
        own, theirs = (
            statistics.median(times) / count
            for times in alternate(
                repeats,
                lambda folder=folder, count=count: seconds(lambda: ours(folder, count)),
                lambda folder=folder, count=count, side=sides[other]: seconds(lambda: side(folder, count)),
            )
        )
        note = f"{1 / own:.0f} / {1 / theirs:.0f} images/s in one process, random crop, flip, normalised batches"
        yield Row(f"loader alone, {name}-megapixel JPEGs / Pillow + {other}", theirs / own, bar, note)
    torch.set_num_threads(threads)
