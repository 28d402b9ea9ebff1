"""Rows that compare loaders alone: decode, random crop to 224 px, flip; without a network, both in one process."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from bench.bare import augment_with_albumentations, augment_with_torchvision
from bench.measure import alternate, seconds
from bench.table import Row


def loaders(large: Path, small: Path, repeats: int) -> Iterator[Row]:
    """This package's training loader against Pillow and torchvision v2, or albumentations, on the same files, in turn."""
    from finetune.data.image import read_image
    from finetune.preprocessing import Preprocessing
    from finetune.transform.light import Light

    light = Light(Preprocessing(), min_area=0.35)

    def ours(files: list[Path]) -> None:
        for number, file in enumerate(files):
            image_HWC = read_image(file, min_size_px=light.min_source_px)
            assert light(image_HWC, seed=number).shape == (224, 224, 3)

    sides = {"torchvision v2": augment_with_torchvision, "albumentations": augment_with_albumentations}
    for name, folder, count, other, bar in (
        ("12", large, 12, "torchvision v2", ">= 3"),
        ("0.1", small, 200, "torchvision v2", ">= 1.5"),
        ("12", large, 12, "albumentations", ">= 1"),
    ):
        files = sorted(folder.rglob("*.jpg"))[:count]
        own, theirs = (
            statistics.median(times) / len(files)
            for times in alternate(
                repeats,
                lambda files=files: seconds(lambda: ours(files)),
                lambda files=files, side=sides[other]: seconds(lambda: side(files)),
            )
        )
        note = f"{1 / own:.0f} / {1 / theirs:.0f} images/s in one process, random crop and flip"
        yield Row(f"loader alone, {name}-megapixel JPEGs / Pillow + {other}", theirs / own, bar, note)
