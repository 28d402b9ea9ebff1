"""Numbers that go wrong: a loss or gradient that is not finite ends the run within that step, before it moves a weight.

The message names the step and the files of the batch. ``max_skipped_steps`` lets so many such steps pass without an
update (a mixed-precision run may meet a few); no poisoned weight ever reaches a checkpoint either way. The check is one
sum over the gradients per step.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from finetune.data.table import Table
from finetune.errors import TrainingError
from finetune.types import Batch


class FiniteNumbers(Callback):
    """Watches loss and gradients.

    Args:
        table: names the images of a batch.
        max_skipped_steps: how many steps may be left out before the run stops.
    """

    def __init__(self, table: Table, max_skipped_steps: int) -> None:
        self.table = table
        self.max_skipped_steps = max_skipped_steps
        self.skipped = 0
        self._rows: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remember which images the step is made of, over an accumulation too."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._rows = []
        self._rows.extend(batch.indices.tolist())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop the gradients of a step that is not finite, or stop."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients or torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()):
            return
        self.skipped += 1
        if self.skipped > self.max_skipped_steps:
            raise TrainingError(self._message(trainer))
        for gradient in gradients:
            gradient.zero_()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """How many steps were left out."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.skipped = state_dict["skipped"]

    def _message(self, trainer: Trainer) -> str:
        names = [self.table.relative(row) for row in self._rows]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return (
            f"step {trainer.global_step + 1} (epoch {trainer.current_epoch}): the loss or its gradient is not finite. "
            f"The batch was {shown}. The last checkpoint is sound. Lower optimizer.lr, set trainer.precision=32-true, "
            f"or let such steps pass with max_skipped_steps={self.max_skipped_steps + 10}"
        )
