"""Test-time augmentation: which pixels each view holds, and that their scores are averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.classifier import Classifier
from finetune.preprocessing import Preprocessing
from finetune.views import views

WIDE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
SQUARE = Preprocessing(size=(32, 32), crop_pct=0.8)


def test_the_plain_view_is_the_preprocessing_and_the_flip_its_mirror() -> None:
    plain, mirrored = views(WIDE, SQUARE, "flip")
    np.testing.assert_array_equal(plain, SQUARE.resize_crop(WIDE))
    np.testing.assert_array_equal(mirrored, np.fliplr(plain))
    assert len(views(WIDE, SQUARE, "none")) == 1


def test_crops_are_the_four_corners_of_the_resized_image() -> None:
    resized = np.asarray(Image.fromarray(WIDE).resize((60, 40), Image.Resampling.BICUBIC))  # 32 / 0.8 on the short side
    found = views(WIDE, SQUARE, "crops")[1:]
    expected = [resized[:32, :32], resized[:32, -32:], resized[-32:, :32], resized[-32:, -32:]]
    for view, corner in zip(found, expected, strict=True):
        np.testing.assert_array_equal(view, corner)
    assert len(views(WIDE, SQUARE, "flip_crops")) == 10


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_every_view_has_the_networks_size_whatever_the_image(crop_mode: str) -> None:
    preprocessing = Preprocessing(size=(24, 40), crop_pct=0.9, crop_mode=crop_mode)  # type: ignore[arg-type]
    for shape in ((10, 200, 3), (200, 10, 3), (24, 40, 3)):
        for view in views(np.zeros(shape, dtype=np.uint8), preprocessing, "flip_crops"):
            assert view.shape == (24, 40, 3)


def test_scores_of_the_views_are_averaged(ckpt: Path, photographs: Path) -> None:
    classifier = Classifier.load(ckpt, device="cpu")
    path = photographs / "b" / "00.png"
    pictures = views(classifier.read(path), classifier.description.preprocessing, "flip")
    each = [classifier.runtime.logits(picture[None])[0] for picture in pictures]
    (chunk,) = classifier.scores([path], tta="flip")
    np.testing.assert_allclose(chunk.logits_BK[0], np.mean(each, axis=0), atol=1e-6)
    assert not np.allclose(each[0], each[1])
