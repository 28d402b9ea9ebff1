"""Resizing inside the augmentation does not alias, and decoders are told how far they may shrink."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from finetune.errors import ConfigError
from finetune.preprocessing import Preprocessing
from finetune.transform.light import Light
from finetune.transform.pipeline import resized
from finetune.transform.standard import Standard
from finetune.transform.strong import Strong


def test_a_fine_checkerboard_shrinks_to_its_mean_and_not_to_a_pattern():
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    transform = Light(Preprocessing(size=(64, 64)), min_area=1.0, hflip=0.0)
    shrunk = transform(image, 0).astype(float)
    assert abs(shrunk.mean() - 127.5) < 2
    assert shrunk.std() < 4  # OpenCV's bilinear resize of the same crop leaves 127


def test_the_smallest_crop_of_a_reduced_image_still_has_the_output_s_size():
    for min_area in (0.2, 0.35, 1.0):
        transform = Light(Preprocessing(size=(64, 64)), min_area=min_area)
        side = transform.min_source_px
        smallest_crop = side * np.sqrt(min_area * 3 / 4)
        assert 64 <= smallest_crop < 65.5


def test_a_mirror_image_is_asked_for_by_its_probability():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = 255
    plain = Preprocessing(size=(64, 64))
    for probability, left in ((0.0, 255), (1.0, 0)):
        transform = Light(plain, min_area=1.0, hflip=probability)
        assert transform(image, 1)[32, 4, 0] == left


def test_shares_outside_their_range_are_reported_together():
    with pytest.raises(ConfigError) as error:
        Standard(Preprocessing(), min_area=0.0, hflip=1.5)
    assert str(error.value) == (
        "transform.min_area=0.0, transform.hflip=1.5: a share between 0 and 1 is expected (min_area above 0)"
    )
    with pytest.raises(ConfigError, match=r"transform\.erase=-0\.5"):
        Strong(Preprocessing(), erase=-0.5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("size", [(90, 70), (224, 224), (300, 371), (64, 64), (5, 400)])
def test_resizing_is_pillows_to_two_levels_of_255(interpolation: str, size: tuple[int, int]):
    """On noise, where every kernel shows most; smaller and larger than the source, and the source's own size."""
    image = np.random.default_rng(0).integers(0, 256, (131, 187, 3), dtype=np.uint8)
    pillow = Image.fromarray(image).resize(size[::-1], Image.Resampling[interpolation.upper()])
    apart = np.abs(resized(image, size, interpolation).astype(int) - np.asarray(pillow))
    assert apart.shape == (*size, 3)
    assert apart.max() <= 2
    assert apart.mean() < 0.25
