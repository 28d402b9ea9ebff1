"""When checkpoints are written: at the end of epochs, every N steps on request, and when the run is interrupted.

Epochs on stored features take milliseconds, and writing 100 MB after each would take longer than training: an epoch that
ends within ``min_interval_s`` of the last checkpoint is cheaper to repeat than to save. The last epoch is always saved.

``last.ckpt`` continues a run; ``previous.ckpt`` is the one before it, so that a damaged file costs one interval and not
the run; ``best.ckpt`` holds the weights with the best monitor, ready to use. Mid-epoch checkpoints are only written where
an optimizer step has just ended, because half-accumulated gradients are not stored.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from finetune.callback.ema import EMA
from finetune.checkpoint import PREFIX, read_payload, write_checkpoint
from finetune.errors import ConfigError, TrainingError
from finetune.run_directory import RunDirectory

log = logging.getLogger(__name__)
PREVIOUS = "previous.ckpt"


class SealedCheckpointIO(CheckpointIO):
    """Lightning's door to our checkpoint file: atomic, hashed, plain data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write whole or not at all; what stood there becomes ``previous.ckpt``."""
        path = Path(path)
        write_checkpoint(checkpoint, path, keep=path.with_name(PREVIOUS))

    def load_checkpoint(  # Lightning's signature
        self,
        path: Any,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001
    ) -> dict[str, Any]:
        """Read with the hash checked; never executes anything, whatever ``weights_only`` says."""
        return read_payload(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file."""
        Path(path).unlink(missing_ok=True)


class Checkpointing(Callback):
    """Writes ``last.ckpt``, ``previous.ckpt`` and ``best.ckpt``.

    Args:
        run: where they go.
        monitor: name of the metric that decides, for example ``val/balanced_accuracy``.
        mode: whether more or less of it is better.
        every_n_steps: also write ``last.ckpt`` every so many optimizer steps; 0 means at epoch ends only.
        min_interval_s: seconds since the last checkpoint before an epoch's end is worth another.
        average: the averaged weights that validation sees, if there are any.
    """

    def __init__(
        self,
        run: RunDirectory,
        monitor: str,
        mode: Literal["min", "max"],
        every_n_steps: int,
        min_interval_s: float,
        average: EMA | None,
    ) -> None:
        self.run = run
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.min_interval_s = min_interval_s
        self.average = average
        self.best: dict[str, Any] = {}
        self.saved_step = -1
        self._saved_s = time.monotonic()
        self._unwritten_best: dict[str, Any] | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Every N optimizer steps, except at the end of an epoch, whose own checkpoint follows in a moment."""
        step = trainer.global_step
        due = self.every_n_steps and step % self.every_n_steps == 0 and not self.is_saved(trainer)
        if due and at_step_boundary(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights when the monitor is strictly better than ever before; they are written with ``last.ckpt``.

        A process killed in between has neither, and finds them again when it repeats the epochs.
        """
        if trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise ConfigError(f"monitor={self.monitor} is not measured; measured are {', '.join(sorted(metrics))}")
        value = float(metrics[self.monitor])
        if not math.isfinite(value):
            log.warning(
                "epoch %d: %s is %s, so these weights cannot become best.ckpt",
                trainer.current_epoch + 1,
                self.monitor,
                value,
            )
        elif not self.best or (value > self.best["value"] if self.mode == "max" else value < self.best["value"]):
            self.best = {"name": self.monitor, "value": value, "epoch": trainer.current_epoch}
            self._keep_best(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch's checkpoint, where it is due."""
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        steps_due = 0 < self.every_n_steps <= trainer.global_step - max(self.saved_step, 0)
        time_due = trainer.strategy.broadcast(time.monotonic() - self._saved_s >= self.min_interval_s)
        if time_due or steps_due or last_epoch:
            self.save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Whatever ended the fit, its last epoch is saved.

        Raises:
            TrainingError: no epoch had a finite monitor, so there is no model to keep.
        """
        if not self.best:
            raise TrainingError(
                f"monitor={self.monitor} was not finite in any epoch, so there is no best model; "
                "take another monitor, or lower optimizer.lr"
            )
        if not self.is_saved(trainer):
            self.save_last(trainer)

    def is_saved(self, trainer: Trainer) -> bool:
        """Whether ``last.ckpt`` holds the newest optimizer step."""
        return self.saved_step == trainer.global_step

    def save_last(self, trainer: Trainer) -> None:
        """Write ``best.ckpt`` if it is new, then ``last.ckpt``; what stood there becomes ``previous.ckpt``."""
        if self._unwritten_best is not None:
            write_checkpoint(self._unwritten_best, self.run.best)
            self._unwritten_best = None
        trainer.save_checkpoint(self.run.last)
        self.saved_step = trainer.global_step
        self._saved_s = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The best monitor so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.best = state_dict["best"]

    def _keep_best(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Only rank 0 keeps and writes; the weights are those that were just evaluated (the averaged ones, under EMA)."""
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        card = {**pl_module.card, "monitor": self.best, "metrics": values}  # type: ignore[dict-item]
        evaluated = pl_module.state_dict() | (self.average.averages if self.average else {})
        weights = {
            name: value.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)
            for name, value in evaluated.items()
            if name.startswith(PREFIX)
        }
        self._unwritten_best = {
            "finetune": card,
            "state_dict": weights,
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
        }


def at_step_boundary(trainer: Trainer) -> bool:
    """Whether the batch that has just ended also ended an optimizer step, so that no gradient is half accumulated."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.is_last_batch or progress.current.ready % trainer.accumulate_grad_batches == 0
