"""The cosine head against the formula."""

from __future__ import annotations

import numpy as np
import torch

from finetune.head.cosine import CosineHead


def test_logits_are_scaled_cosines_worked_out_by_numpy():
    torch.manual_seed(0)
    head = CosineHead(5, 3, scale=10.0)
    features = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    directions = head.directions.weight.detach().numpy()
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(directions, axis=1)[None]
    expected = 10.0 * (features @ directions.T) / lengths
    np.testing.assert_allclose(head(torch.from_numpy(features)).detach(), expected, rtol=1e-5)


def test_the_length_of_the_features_makes_no_difference():
    head = CosineHead(5, 3).eval()
    features_BD = torch.randn(4, 5)
    torch.testing.assert_close(head(features_BD), head(1000 * features_BD))


def test_the_scale_is_learned():
    head = CosineHead(5, 3)
    head(torch.randn(4, 5)).logsumexp(1).sum().backward()
    assert head.scale.grad is not None
