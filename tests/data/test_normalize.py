"""Normalisation by rows of pixels against the formula, channel by channel."""

from __future__ import annotations

import pytest
import torch

from finetune.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=(6, 10), mean=(0.1, 0.45, 0.7), std=(0.2, 0.3, 0.9))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_formula_bit_for_bit_in_channels_last_memory(memory_format: torch.memory_format) -> None:
    images_BCHW = torch.randint(0, 256, (3, 3, 6, 10), dtype=torch.uint8).to(memory_format=memory_format)
    before = images_BCHW.clone()
    got_BCHW = PREPROCESSING.normalize(images_BCHW)
    for channel, (mean, std) in enumerate(zip(PREPROCESSING.mean, PREPROCESSING.std, strict=True)):
        expected_BHW = (images_BCHW[:, channel].float() / 255.0 - torch.tensor(mean)) / torch.tensor(std)
        assert torch.equal(got_BCHW[:, channel], expected_BHW)
    assert got_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images_BCHW, before)


def test_no_image_is_no_image() -> None:
    assert PREPROCESSING.normalize(torch.empty(0, 3, 6, 10, dtype=torch.uint8)).shape == (0, 3, 6, 10)
