"""Numbers that go wrong: a loss or gradient that is not finite ends the run within that step, before it moves a weight.

The message names the step and the files of the batch. ``max_skipped_steps`` lets so many such steps pass without an
update (a mixed-precision run may meet a few). No poisoned number reaches a checkpoint either way: batch normalisation
has seen the batch by then, so its statistics go back to what they were before the step. The check is one sum over
the gradients per step; where steps may be skipped, one copy of the buffers as well. In 16-mixed precision gradients
overflow in sound runs, and torch's GradScaler leaves those steps out; there only the loss is looked at.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
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
        self._losses: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remember which images the step is made of, over an accumulation too, and the statistics before it."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._rows, self._losses = [], []
            if self.max_skipped_steps:
                self._buffers = {name: buffer.clone() for name, buffer in _buffers(pl_module).items()}
        self._rows.extend(batch.indices.tolist())

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remember the loss; looking at it here would make a GPU wait."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop the gradients of a step that is not finite, or stop."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        scales_loss = getattr(trainer.precision_plugin, "scaler", None) is not None
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None and not scales_loss]
        if not self._losses or self._is_finite(trainer, gradients):
            return
        self.skipped += 1
        if self.skipped > self.max_skipped_steps:
            raise TrainingError(self._message(trainer))
        for parameter in parameters:
            parameter.grad = None
        for name, buffer in _buffers(pl_module).items():
            buffer.copy_(self._buffers[name])

    def state_dict(self) -> dict[str, Any]:
        """How many steps were left out."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.skipped = state_dict["skipped"]

    def _is_finite(self, trainer: Trainer, gradients: list[Tensor]) -> bool:
        """One look at everything; the gradients are shared by all processes, their losses are not."""
        figures = torch.stack([*torch._foreach_norm(gradients), *(loss.float() for loss in self._losses)])
        finite = torch.isfinite(figures.double().sum())
        if trainer.world_size > 1:
            finite = trainer.strategy.reduce(finite.float(), reduce_op="min")
        return bool(finite)

    def _message(self, trainer: Trainer) -> str:
        names = [self.table.relative(row) for row in self._rows]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return (
            f"step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}): the loss or its gradient is not "
            f"finite. The batch was {shown}. The last checkpoint is sound. Lower optimizer.lr, set "
            "trainer.precision=32-true, or let such steps pass with "
            f"max_skipped_steps={self.max_skipped_steps + 10}"
        )


def _buffers(pl_module: LightningModule) -> dict[str, Tensor]:
    """The network's own (batch statistics); metrics keep theirs apart."""
    return dict(pl_module.get_submodule("network").named_buffers())
