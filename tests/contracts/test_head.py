"""What every head promises: logits of each image from its own features, and a gradient for everything it has."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def test_a_head_gives_one_row_of_logits_per_image(head, part):
    for features, classes in ((8, 2), (64, 11)):
        logits_BK = part("head", head, features, classes)(torch.randn(5, features))
        assert logits_BK.shape == (5, classes)
        assert torch.isfinite(logits_BK).all()


def test_an_image_s_logits_do_not_depend_on_its_batch(head, part):
    torch.manual_seed(0)
    module = part("head", head, 16, 3).eval()
    features_BD = torch.randn(6, 16)
    together = module(features_BD)
    alone = torch.cat([module(row[None]) for row in features_BD])
    torch.testing.assert_close(together, alone)


def test_the_gradient_reaches_the_features_and_every_parameter(head, part):
    torch.manual_seed(0)
    module = part("head", head, 16, 3)
    features_BD = torch.randn(6, 16, requires_grad=True)
    F.cross_entropy(module(features_BD), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    assert features_BD.grad.abs().sum() > 0
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_head_learns_classes_that_are_separable(head, part):
    torch.manual_seed(0)
    targets_B = torch.arange(60) % 3
    features_BD = torch.randn(60, 16) * 0.3 + torch.eye(3, 16)[targets_B] * 2
    module = part("head", head, 16, 3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module(features_BD), targets_B).backward()
        optimizer.step()
    assert (module.eval()(features_BD).argmax(1) == targets_B).float().mean() > 0.95


def test_a_head_s_state_restores_its_logits(head, part):
    torch.manual_seed(0)
    first, second = part("head", head, 16, 3).eval(), part("head", head, 16, 3).eval()
    second.load_state_dict(first.state_dict())
    features_BD = torch.randn(4, 16)
    assert torch.equal(first(features_BD), second(features_BD))
