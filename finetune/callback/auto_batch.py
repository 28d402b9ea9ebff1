"""``data.batch_size=auto``: steps of 32 images, cut into parts where the memory does not hold 32 at once.

Before the first step, two steps of every phase are tried on blank images, with 32, then 16, then 8 at once, until it fits.
The parts' gradients are accumulated, each weighted by its images, so a step is that of the whole batch, up to the order
of a sum; only batch normalisation in training mode sees a part at a time, mixup mixes within one, and balanced class
weights are normalised over one. The choice stands in the checkpoint: a resumed run computes with the same parts, to the
bit, whatever else the device now holds. Costs two steps per phase and attempt.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from finetune.callback.memory import explain, is_out_of_memory
from finetune.data.module import ImageData
from finetune.freeze.schedule import FreezeSchedule
from finetune.types import Batch

log = logging.getLogger(__name__)


class AutoBatch(Callback):
    """Sets ``data.parts`` and the accumulation before the loaders are made."""

    def __init__(self, data: ImageData) -> None:
        self.data = data
        self.parts = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the parts, unless a checkpoint brought them.

        Raises:
            TrainingError: one image alone does not fit.
        """
        if self.parts == 0:
            self.parts = self._find(trainer, pl_module)
        self.data.parts = self.parts
        trainer.accumulate_grad_batches *= self.parts
        per_step, at_once = self.data.options.images_per_step, self.data.images_at_once
        log.info("batch     auto: %d images a step, %d at once", per_step, at_once)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the model what each part counts."""
        loader = trainer.train_dataloader
        assert loader is not None
        pl_module.part_weight = loader.batches.weight

    def state_dict(self) -> dict[str, Any]:
        """The choice."""
        return {"parts": self.parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.parts = state_dict["parts"]

    def _find(self, trainer: Trainer, pl_module: LightningModule) -> int:
        """What fits in every process: the most parts that one of them needs."""
        try:
            parts = parts_that_fit(
                lambda images: _try_step(trainer, pl_module, self.data, images), self.data.largest_batch
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise explain(error, 1, self.data.options.image_size) from error
        device = trainer.strategy.root_device
        return int(trainer.strategy.reduce(torch.tensor(float(parts), device=device), reduce_op="max"))


def parts_that_fit(step: Callable[[int], None], largest: int) -> int:
    """1, 2, 4, ...: into how many a batch of ``largest`` images must be cut until ``step(images)`` has enough memory.

    Raises:
        RuntimeError, MemoryError: one image is too much, or ``step`` failed for another reason.
    """
    parts = 1
    while True:
        images = math.ceil(largest / parts)
        try:
            step(images)
        except (RuntimeError, MemoryError) as error:
            if images == 1 or not is_out_of_memory(error):
                raise
            parts *= 2
        else:
            return parts


def _try_step(trainer: Trainer, pl_module: LightningModule, data: ImageData, images: int) -> None:
    """Two optimizer steps of every phase, as the run will take them, by a copy of the network.

    Two, because an optimizer has its moments from the end of the first one on.

    The network itself would have to be put back, and DDP's hooks would take its parameters for used.
    """
    model = cast("Any", pl_module)
    schedule: FreezeSchedule = model.schedule
    device = trainer.strategy.root_device
    target = torch.as_tensor(data.table.targets[data.table.rows("train")[:1]], device=device)
    batch = Batch(
        torch.zeros(images, 3, *data.preprocessing.size, dtype=torch.uint8, device=device),
        target.repeat(images, *[1] * (target.ndim - 1)),
        torch.zeros(images, dtype=torch.int64, device=device),
    )
    network = model.network
    model.network = copy.deepcopy(network).train()
    try:
        optimizer = model.configure_optimizers()
        for phase in [phase for phase in schedule.phases for _ in range(2)]:
            model.network.freeze(schedule, phase.start)
            with trainer.precision_plugin.train_step_context():
                loss = model.batch_loss(batch)
            loss.backward()
            optimizer.step()
    finally:
        model.network = network
        if device.type == "cuda":
            torch.cuda.empty_cache()
