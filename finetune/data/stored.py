"""Batches of stored activations in the place of images: what a loader yields in a phase whose features are reused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from finetune.cache.store import Features
from finetune.data.sampler import PADDING, Rows
from finetune.types import Batch

_REASON = "could not be read when its features were computed"


class StoredRows:
    """``features`` of ``rows`` (ascending row numbers of a table) with their ``targets`` of the whole table."""

    def __init__(self, features: Features, rows: Rows, targets: npt.NDArray[np.generic]) -> None:
        self.features = features
        self.rows = rows
        self.targets = targets
        self.present_N = features.present_N

    def batch(self, wanted: Rows) -> Batch:
        """The batch of some rows, in their order; padding gets the first image's features, unreadable ones are listed."""
        positions = np.searchsorted(self.rows, wanted)
        positions[wanted == PADDING] = int(np.argmax(self.present_N))
        readable = self.present_N[positions]
        kept = wanted[readable]
        return Batch(
            inputs=self.features.take(positions[readable]),
            targets=torch.from_numpy(self.targets[kept]),
            indices=torch.from_numpy(kept),
            is_features=True,
            unreadable=tuple((int(row), _REASON) for row in wanted[~readable]),
        )
