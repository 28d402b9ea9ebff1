"""Mixup and cutmix: the labels say how much of which image is in the picture."""

from __future__ import annotations

import pytest
import torch

from finetune.transform.mix import Mix


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Image i is i + 1 everywhere, so a mixture can be read off its pixels."""
    return torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(4, 3, 8, 8).clone(), torch.arange(4)


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_the_labels_are_the_shares_of_the_pixels(method):
    images_BCHW, targets_B = batch()
    mix = Mix(4, mixup_alpha=1.0 * (method == "mixup"), cutmix_alpha=1.0 * (method == "cutmix"))
    torch.manual_seed(1)
    mixed_BCHW, targets_BK = mix(images_BCHW, targets_B)
    torch.testing.assert_close(targets_BK.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed_BCHW.mean(dim=(1, 2, 3)), targets_BK @ torch.arange(1.0, 5.0))
    assert (targets_BK.max(1).values < 1).any()


def test_torch_s_seed_decides_and_both_methods_get_their_turn():
    mix = Mix(4, mixup_alpha=1.0, cutmix_alpha=1.0)
    kinds = set()
    for seed in range(12):
        torch.manual_seed(seed)
        first = mix(*batch())
        torch.manual_seed(seed)
        second = mix(*batch())
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        kinds.add(bool((first[0] == first[0].round()).all()))  # cutmix keeps whole pixels
    assert kinds == {True, False}


def test_several_labels_an_image_are_mixed_as_they_are():
    images_BCHW, _ = batch()
    targets_BK = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    torch.manual_seed(0)
    mixed_BK = Mix(2, mixup_alpha=1.0, cutmix_alpha=0.0)(images_BCHW, targets_BK)[1]
    assert mixed_BK.shape == (4, 2)
    assert mixed_BK.sum().item() == pytest.approx(targets_BK.sum().item(), rel=1e-5)


def test_mixing_by_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        Mix(4, mixup_alpha=0.0, cutmix_alpha=0.0)
