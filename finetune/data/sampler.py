"""Which images make up which batch: a pure function of (seed, epoch), cut evenly and shared out over processes.

Batches are as equal as they can be (33 images at a batch size of 32 are 17 and 16, never 32 and 1), so no image is
dropped and no batch is too small for batch normalisation. With several processes every process gets the same number of
images in each batch, so that averaged gradients equal those of one process with the whole batch; up to
``world_size - 1`` images, others in each epoch, sit out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from finetune.random_keys import generator

Rows = npt.NDArray[np.int64]
PADDING = -1
"""Row number of an entry that only evens out the processes' work; it is counted nowhere."""


def shuffled(rows: Rows, seed: int, epoch: int) -> Rows:
    """``rows`` in the order of ``epoch``."""
    return generator(seed, "order", epoch).permutation(rows)


def balanced(rows: Rows, targets_N: npt.NDArray[np.int64], seed: int, epoch: int) -> Rows:
    """As many draws as ``rows``, with replacement, every class equally likely (``targets_N`` are the rows' classes)."""
    counts_K = np.bincount(targets_N)
    weights_N = 1.0 / counts_K[targets_N]
    return generator(seed, "order", epoch).choice(rows, size=len(rows), p=weights_N / weights_N.sum())


def train_batches(order: Rows, batch_size: int, rank: int, world_size: int) -> list[Rows]:
    """This process's share of an epoch: ``ceil(N / (batch_size * world_size))`` batches of nearly equal size."""
    share = order[: len(order) - len(order) % world_size][rank::world_size]
    return list(np.array_split(share, math.ceil(len(share) / batch_size)))


def evaluation_batches(rows: Rows, batch_size: int, rank: int, world_size: int) -> list[Rows]:
    """This process's share of an evaluation in table order; padded so that all processes run equally many batches."""
    padded = np.full(math.ceil(len(rows) / world_size) * world_size, PADDING, dtype=np.int64)
    padded[: len(rows)] = rows
    share = padded[rank::world_size]
    return [share[start : start + batch_size] for start in range(0, len(share), batch_size)]


class KeyedBatches:
    """The batch sampler of a loader: yields lists of (epoch, row), from any batch of any epoch on.

    ``parts`` cuts every batch of training into so many, nearly equal, for a memory that does not hold it at once. A step over them
    ends with a largest one, so that it never ends with an empty one.
    """

    def __init__(
        self,
        rows: Rows,
        targets_N: npt.NDArray[np.int64] | None,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        *,
        sampler: Literal["shuffle", "balanced", "sequential"],
        parts: int = 1,
    ) -> None:
        self.rows = rows
        self.targets_N = targets_N
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.sampler = sampler
        self.parts = parts
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        if self.sampler == "sequential":
            return math.ceil(math.ceil(len(self.rows) / self.world_size) / self.batch_size)
        return math.ceil(len(self.rows) // self.world_size / self.batch_size) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches(self.epoch)[self.first_batch :]:
            yield [(self.epoch, int(row)) for row in batch]

    def batches(self, epoch: int) -> list[Rows]:
        """Every batch of ``epoch`` for this process."""
        if self.sampler == "sequential":
            return evaluation_batches(self.rows, self.batch_size, self.rank, self.world_size)
        if self.sampler == "balanced":
            assert self.targets_N is not None, "balanced sampling needs one class per image"
            order = balanced(self.rows, self.targets_N, self.seed, epoch)
        else:
            order = shuffled(self.rows, self.seed, epoch)
        whole = train_batches(order, self.batch_size, self.rank, self.world_size)
        return [part for batch in whole for part in reversed(np.array_split(batch, self.parts))]

    def weight(self, number: int) -> float:
        """What the mean loss of training batch ``number`` of an epoch counts in its step; 1 where all parts are equal."""
        share = len(self.rows) // self.world_size
        whole = _size(share, math.ceil(share / self.batch_size), number // self.parts)
        return _size(whole, self.parts, self.parts - 1 - number % self.parts) * self.parts / whole


def _size(total: int, pieces: int, number: int) -> int:
    """Entries of piece ``number`` when ``np.array_split`` cuts ``total`` into ``pieces``."""
    return total // pieces + (number < total % pieces)
