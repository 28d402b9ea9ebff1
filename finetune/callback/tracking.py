"""What the trackers show between the epochs: loss, learning rate per stage, gradient norm, images per second, phase.

Every ``every_n_steps`` optimizer steps; metrics.csv keeps an epoch's last values. Reads only, so a run is the same to
the bit with and without it. Costs one norm over the gradients per logged step.
"""

from __future__ import annotations

import time
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from finetune.freeze.schedule import FreezeSchedule
from finetune.types import Batch


class Tracking(Callback):
    """Sends step figures to every logger; the gradient's norm is that before clipping."""

    def __init__(self, *, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps
        self._gradient_norm: torch.Tensor | None = None
        self._images = 0
        self._since = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock runs while training only: validation and checkpoints lie between two epochs."""
        self._images, self._since = 0, time.monotonic()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure the gradient on the steps that are logged."""
        if self._is_due(trainer.global_step + 1, trainer):
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log after an optimizer step."""
        self._images += len(batch.indices) * trainer.world_size
        if self._gradient_norm is None:
            return
        norm, self._gradient_norm = float(self._gradient_norm), None
        now = time.monotonic()
        schedule = cast("FreezeSchedule", pl_module.schedule)
        metrics = {
            "train/gradient_norm": norm,
            "train/images_per_s": self._images / max(now - self._since, 1e-9),
            "phase": float(schedule.phases.index(schedule.phase(trainer.current_epoch))),
            "epoch": float(trainer.current_epoch),
            **_learning_rates(trainer.optimizers[0]),
        }
        if isinstance(outputs, dict) and "loss" in outputs:
            metrics["train/loss_step"] = float(outputs["loss"]) * trainer.accumulate_grad_batches
        self._images, self._since = 0, now
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.fit_loop.epoch_loop._batches_that_stepped - 1)

    def _is_due(self, step: int, trainer: Trainer) -> bool:
        """Every n steps, and at the last step of an epoch, so that every epoch has its figures."""
        return step % self.every_n_steps == 0 or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """``lr/STAGE`` for every stage, from input to output; 0 for one that is frozen."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        stage = str(group["name"]).removesuffix(".no_decay")
        trains = any(parameter.requires_grad for parameter in group["params"])
        rates[f"lr/{stage}"] = max(rates.get(f"lr/{stage}", 0.0), float(group["lr"]) if trains else 0.0)
    return rates
