"""Folders of realistic JPEG photographs, made from the two that scikit-learn carries (a temple and a flower).

Random crops, mirrored, lightened or darkened, with film grain, so that the entropy coder has as much to do as with a
camera's file: about 0.35 bytes a pixel at quality 90.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SMALL = (300, 370)
"""Height and width of 0.11 megapixels."""
LARGE = (3000, 4000)


def write(root: Path, count: int, size: tuple[int, int], seed: int = 0) -> Path:
    """``count`` photographs of ``size`` under ``root/china`` and ``root/flower``; kept if all are there."""
    if len(list(root.rglob("*.jpg"))) == count:
        return root
    from sklearn.datasets import load_sample_image

    generator = np.random.default_rng(seed)
    names = ("china", "flower")
    sources = {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in names}
    for number in range(count):
        name = names[number % 2]
        (root / name).mkdir(parents=True, exist_ok=True)
        photograph(sources[name], size, generator).save(root / name / f"{number:04d}.jpg", quality=90)
    return root


def photograph(source: Image.Image, size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    """One crop of ``source``, at least half of its width, scaled to ``size``."""
    height, width = size
    crop_width = int(source.width * generator.uniform(0.5, 0.9))
    crop_height = min(source.height, crop_width * height // width)
    left = int(generator.integers(0, source.width - crop_width + 1))
    top = int(generator.integers(0, source.height - crop_height + 1))
    box = (left, top, left + crop_width, top + crop_height)
    pixels = np.asarray(source.resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.float32)
    if generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    grain = generator.standard_normal((height, width, 1), dtype=np.float32) * 5.0
    return Image.fromarray(np.clip(pixels * generator.uniform(0.8, 1.2) + grain, 0, 255).astype(np.uint8))
