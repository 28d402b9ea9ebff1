"""The few types that every part shares, and the key to tensor names.

A tensor's name ends in its dimensions: ``B`` batch, ``C`` channels, ``H`` height, ``W`` width, ``D`` features,
``K`` classes, ``N`` images of a data set. ``images_BCHW`` is a batch of images, ``logits_BK`` one row of scores each.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from finetune.preprocessing import Preprocessing


class Batch(NamedTuple):
    """What the loader hands to the model.

    ``inputs``: uint8 images B C H W, or stored activations (float, B first) when ``is_features``.
    ``targets``: int64 class numbers B, or float32 B K in [0, 1] for multi-label data.
    ``indices``: int64 rows of the data set's table B, so that any image of the batch can be named; -1 marks an entry that
    only evens out the work of several processes.
    ``unreadable``: (row, reason) of the images that should be here and could not be read.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    is_features: bool = False
    unreadable: tuple[tuple[int, str], ...] = ()


class Backbone(NamedTuple):
    """A feature extractor: ``module`` maps normalised images B C H W to pooled features B D."""

    module: nn.Module
    num_features: int
    preprocessing: Preprocessing
    weights: str
    """Where the weights came from, in words for the user; empty when the network is untrained."""
