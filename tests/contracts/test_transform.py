"""What every transform promises: uint8 of exactly the network's size, a function of the image and the seed alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=(32, 48), crop_pct=0.9)


def photograph(height: int = 90, width: int = 70) -> np.ndarray:
    """Smooth shapes with some noise, the same every time."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [np.sin(rows / (4 + c)) + np.cos(columns / (5 + c)) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 0.2, (height, width, 3))
    return np.clip((np.stack(channels, 2) + noise) * 50 + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(90, 70), (32, 48), (5, 7), (300, 20), (20, 300), (1, 1)])
def test_any_image_becomes_uint8_of_exactly_the_network_s_size(transform, part, size):
    build = part("transform", transform, PREPROCESSING)
    for seed in range(5):
        output_HWC = build(photograph(*size), seed)
        assert output_HWC.shape == (32, 48, 3)
        assert output_HWC.dtype == np.uint8


def test_the_seed_alone_decides_whatever_was_asked_before(transform, part):
    image = photograph()
    first, second = part("transform", transform, PREPROCESSING), part("transform", transform, PREPROCESSING)
    for seed in (7, 8, 9, 9):
        second(photograph(40, 50), seed)
    assert np.array_equal(first(image, 5), second(image, 5))
    assert np.array_equal(first(image, 5), first(image, 5))


def test_other_seeds_give_other_images_unless_nothing_is_random(transform, part):
    build = part("transform", transform, PREPROCESSING)
    different = {build(photograph(), seed).tobytes() for seed in range(12)}
    assert len(different) == (1 if transform == "none" else 12)


def test_the_image_that_was_given_is_left_alone(transform, part):
    image = photograph()
    before = image.copy()
    output_HWC = part("transform", transform, PREPROCESSING)(image, 3)
    assert np.array_equal(image, before)
    assert not np.shares_memory(output_HWC, image)


def test_another_process_gives_the_same_images(part):
    names = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "transform").glob("*.yaml"))
    program = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from conftest import build_part; from test_transform import digest\n"
        f"print(digest(build_part, {names!r}))\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(part, names)


def digest(part: object, names: list[str]) -> str:
    """One hash over every transform at a few seeds."""
    images = [
        part("transform", name, PREPROCESSING)(photograph(), seed) for name in names for seed in (0, 1, 2**32 - 1)
    ]
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
