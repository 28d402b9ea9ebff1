"""Never below the probe: the weights that are kept lie between the linear probe and the fine-tuned network.

Fine-tuning on few images often loses what the pretrained features had. The straight line from the probe (the untouched
backbone and its solved head) to the fine-tuned weights stays good all along, and its middle is often better than both ends
(WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903). Five points of it are evaluated on val, and ``candidates`` says which is
kept. Test images play no part.

Where fine-tuning moved the statistics of batch normalisation, those of a point in between are measured anew on training
images: the mean of two networks' statistics belongs to neither.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

COEFFICIENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""0 is the probe, 1 the fine-tuned network."""

Weights = dict[str, Tensor]


def between(probe: Weights, tuned: Weights, coefficient: float) -> Weights:
    """The point at ``coefficient``; the ends are the two networks exactly, and integers are the fine-tuned network's."""
    if coefficient in (0.0, 1.0):
        return {name: value.clone() for name, value in (tuned if coefficient else probe).items()}
    return {
        name: torch.lerp(value, tuned[name], coefficient) if value.is_floating_point() else tuned[name].clone()
        for name, value in probe.items()
    }


def statistics_moved(probe: Weights, tuned: Weights) -> bool:
    """Whether the two networks' batch normalisation has seen different data."""
    return any(not torch.equal(value, tuned[name]) for name, value in probe.items() if name.endswith("running_mean"))


def place(network: nn.Module, probe: Weights, tuned: Weights, coefficient: float, images: Iterable[Tensor]) -> None:
    """Put ``network`` at the point at ``coefficient``; ``images`` are normalised training batches, read where needed."""
    network.load_state_dict(between(probe, tuned, coefficient))
    if 0.0 < coefficient < 1.0 and statistics_moved(probe, tuned):
        modes = [(module, module.training) for module in network.modules()]
        update_bn(images, network)
        for module, mode in modes:
            module.training = mode
