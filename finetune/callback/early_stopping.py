"""Stop when the monitor has not improved for ``patience`` epochs (``callback=early_stopping``); Lightning's own, resumable.

Off by default: the cosine schedule is made for its full length and ``best.ckpt`` keeps the best epoch anyway.
"""

from __future__ import annotations

from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping

from finetune.ranges import Count, NotNegative


class EarlyStopping(LightningEarlyStopping):
    """Watches ``monitor``, higher or lower being better as ``mode`` says."""

    def __init__(
        self, monitor: str, mode: Literal["min", "max"], *, patience: Count = 5, min_delta: NotNegative = 0.0
    ) -> None:
        super().__init__(monitor=monitor, mode=mode, patience=patience, min_delta=min_delta)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was interrupted just after it had decided to stop stays stopped."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
