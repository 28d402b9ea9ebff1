"""A torch DataLoader that begins where the run stands: any batch of any epoch, whatever the number of workers.

Lightning calls ``iter()`` once before any hook announces the epoch, and never exhausts the iterator. So the position is
asked for when the first batch is drawn, not when the iterator is made.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from finetune.data.dataset import ImageRows, Sample, collate
from finetune.data.sampler import KeyedBatches
from finetune.data.stored import StoredRows
from finetune.types import Batch


class Position(NamedTuple):
    """Epoch, and batches of it that are done."""

    epoch: int
    batch: int


class KeyedLoader:
    """Batches of ``images`` in the order of ``batches``, from ``position()`` on.

    ``stored`` says for an epoch whether stored activations stand in for the images.
    """

    def __init__(
        self,
        images: ImageRows,
        batches: KeyedBatches,
        position: Callable[[], Position],
        stored: Callable[[int], StoredRows | None],
        num_workers: int,
    ) -> None:
        self.batches = batches
        self.position = position
        self.stored = stored
        self.loader: DataLoader[Sample] = DataLoader(
            images,
            batch_sampler=batches,  # yields (epoch, row) keys
            num_workers=num_workers,
            collate_fn=collate,
            worker_init_fn=_survive_first_signal,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),  # its draws are unused; the global generator stays untouched
        )

    def __len__(self) -> int:
        return len(self.batches)

    def close(self) -> None:
        """End the workers while their queues are still there.

        Left to the garbage collector after an error, the queues may go first: the workers then wait for ever, and the
        process for them, as they survive the one signal that it ends them with.
        """
        if self.loader._iterator is not None:
            self.loader._iterator._shutdown_workers()  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Batch]:
        self.batches.epoch, self.batches.first_batch = self.position()
        stored = self.stored(self.batches.epoch)
        if stored is None:
            yield from self.loader
            return
        for keys in self.batches:
            yield stored.batch(np.array([row for _, row in keys], dtype=np.int64))


def _survive_first_signal(_worker: int) -> None:
    """Make a worker outlive the signal that asks the run to leave.

    SLURM and a terminal's Ctrl-C signal every process of a run. The main process saves and leaves at the end of its
    step, and may need this worker for the rest of an accumulation; torch's own handler would end the worker, and its
    death the step. A second signal ends the worker at once, as it does the main process.
    """
    received = list[int]()

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, receive)


def workers_for(rows: int, num_workers: int | None) -> int:
    """``num_workers`` as given; else none for what one process decodes in seconds, else one per core it may use."""
    if num_workers is not None:
        return num_workers
    return 0 if rows < 2_000 else len(os.sched_getaffinity(0))
