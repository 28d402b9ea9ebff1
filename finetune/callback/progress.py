"""What the terminal shows while a run trains: a bar where someone watches, and one line per epoch everywhere."""

from __future__ import annotations

import logging
import sys
import time

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

log = logging.getLogger(__name__)


class EpochLine(Callback):
    """Prints the monitor and the losses at the end of each epoch, and which stages begin to train."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self._started = 0.0
        self._phase: object = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a run that is resumed in mid-epoch announces no epoch."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so when a phase begins."""
        self._started = time.monotonic()
        phase = pl_module.schedule.phase(trainer.current_epoch)  # type: ignore[union-attr, operator]
        if phase is not self._phase and trainer.is_global_zero:
            self._phase = phase
            norm = [f"{name} (norms)" for name in phase.norm_stages]
            log.info("epoch %d: %s train", trainer.current_epoch + 1, ", ".join([*phase.stages, *norm]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch's line."""
        if not trainer.is_global_zero:
            return
        names = dict.fromkeys(("train/loss", "val/loss", self.monitor))
        figures = {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}
        shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        seconds = time.monotonic() - self._started
        log.info("epoch %d/%s  %s  %.1f s", trainer.current_epoch + 1, trainer.max_epochs, shown, seconds)


def progress(monitor: str) -> list[Callback]:
    """The epoch lines, and a bar when standard error is a terminal."""
    bar = [TQDMProgressBar(refresh_rate=1, leave=False)] if sys.stderr.isatty() else []
    return [EpochLine(monitor), *bar]
