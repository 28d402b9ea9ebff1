"""Training images per second from 12-megapixel photographs: our loader against plain Pillow and albumentations.

    python benchmarks/data_loader.py

Both give 224 px random crops with flips, one thread. Plain: ``Image.open(...).convert("RGB")``, then
``RandomResizedCrop`` and ``HorizontalFlip`` of albumentations. About a minute.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import albumentations as A
import numpy as np
import simplejpeg
from PIL import Image

from finetune.data.image import read_image
from finetune.preprocessing import Preprocessing
from finetune.transform.light import Light

_IMAGES = 12


def photograph(seed: int) -> np.ndarray:
    """4000 x 3000 pixels of smooth noise with grain."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (3000 // 40, 4000 // 40, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((4000, 3000), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def images_per_s(files: list[Path], load: Callable[[Path, int], np.ndarray]) -> float:
    """The best of three passes."""
    seconds = []
    for attempt in range(3):
        started = time.perf_counter()
        for number, file in enumerate(files):
            assert load(file, 100 * attempt + number).shape == (224, 224, 3)
        seconds.append(time.perf_counter() - started)
    return len(files) / min(seconds)


def measure() -> dict[str, float]:
    """Images per second, and the ratio."""
    ours = Light(Preprocessing(size=(224, 224)), min_area=0.35)
    plain = A.Compose([A.RandomResizedCrop(size=(224, 224), scale=(0.35, 1.0)), A.HorizontalFlip()])
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.jpg" for number in range(_IMAGES)]
        for number, file in enumerate(files):
            file.write_bytes(simplejpeg.encode_jpeg(photograph(number), quality=92))
        fast = images_per_s(files, lambda file, seed: ours(read_image(file, min_size_px=ours.min_source_px), seed))
        slow = images_per_s(files, lambda file, _: plain(image=np.asarray(Image.open(file).convert("RGB")))["image"])
    return {"ours_images_per_s": fast, "pillow_albumentations_images_per_s": slow, "loader_ratio": fast / slow}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
