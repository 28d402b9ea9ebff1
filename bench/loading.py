"""Rows that compare loaders alone: decode, resize, crop, without a network, both in one process."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from bench.bare import augment_with_albumentations, read_with_torchvision
from bench.measure import alternate, seconds
from bench.table import Row


def loaders(large: Path, small: Path, repeats: int) -> Iterator[Row]:
    """This package's reader against Pillow and torchvision v2, or albumentations, on the same files, in turn."""
    from finetune.data.image import read_image
    from finetune.preprocessing import Preprocessing
    from finetune.transform.light import Light

    preprocessing = Preprocessing()

    def read(files: list[Path]) -> None:
        for file in files:
            image_HWC = read_image(file, min_size_px=preprocessing.min_source_px)
            assert preprocessing.resize_crop(image_HWC).shape == (224, 224, 3)

    for name, folder, count, bar in (("12", large, 12, ">= 3"), ("0.1", small, 200, ">= 1.5")):
        files = sorted(folder.rglob("*.jpg"))[:count]
        ours, theirs = (
            statistics.median(times) / len(files)
            for times in alternate(
                repeats,
                lambda files=files: seconds(lambda: read(files)),
                lambda files=files: seconds(lambda: read_with_torchvision(files)),
            )
        )
        note = f"{1 / ours:.0f} / {1 / theirs:.0f} images/s in one process"
        yield Row(f"loader alone, {name}-megapixel JPEGs / Pillow + torchvision v2", theirs / ours, bar, note)

    light = Light(preprocessing, min_area=0.35)

    def augment(files: list[Path]) -> None:
        for number, file in enumerate(files):
            image_HWC = read_image(file, min_size_px=light.min_source_px)
            assert light(image_HWC, seed=number).shape == (224, 224, 3)

    files = sorted(large.rglob("*.jpg"))
    ours, theirs = (
        statistics.median(times) / len(files)
        for times in alternate(
            repeats,
            lambda: seconds(lambda: augment(files)),
            lambda: seconds(lambda: augment_with_albumentations(files)),
        )
    )
    note = f"{1 / ours:.0f} / {1 / theirs:.0f} images/s in one process"
    yield Row("random crops of 12-megapixel JPEGs / Pillow + albumentations", theirs / ours, ">= 1", note)
