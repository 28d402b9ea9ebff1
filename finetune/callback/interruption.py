"""SIGTERM and SIGINT: save at the next step boundary and leave with 143 or 130; a second signal leaves at once.

During validation the state of the last training step is saved with the validation marked as still to do, so that the
resumed run repeats the validation and nothing else. Outside of training (data check, final evaluation) there is nothing
to save and the first signal leaves. SLURM's pre-emption sends SIGTERM and is served by the same path.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from finetune.callback.checkpointing import Checkpointing, at_step_boundary
from finetune.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOT_BEGUN = {
    "total": {"ready": 1, "started": 1, "processed": 0, "completed": 0},
    "current": {"ready": 1, "started": 1, "processed": 0, "completed": 0},
    "is_last_batch": False,
}
"""A validation of which no batch is done, in the words of Lightning's progress tracking."""


class Interruption(Callback):
    """Holds the signal that arrived, and acts on it where the run can be saved."""

    def __init__(self, checkpointing: Checkpointing) -> None:
        self.checkpointing = checkpointing
        self.received = 0
        self.training = False
        self._validation_pending = False

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Install the handlers for the duration of a run."""
        before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the end of a step."""
        self.training = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back from Lightning, which registers its handlers after ``on_fit_start``.

        Its handler ends with exit code 0, saves nothing, stops in mid-accumulation, and in several processes waits for
        the others inside of the handler.
        """
        self.take_signals()

    def take_signals(self) -> None:
        """Receive the signals from here on."""
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Leave after an optimizer step; at the epoch's last one, with its validation still to do."""
        if self._asked(trainer) and at_step_boundary(trainer):
            self._validation_pending = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            self._leave(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Leave in mid-validation."""
        if not trainer.sanity_checking and self._asked(trainer):
            self._validation_pending = True
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's checkpoint where it was not due; the epoch's figures are logged before the run leaves."""
        if self._asked(trainer) and not self.checkpointing.is_saved(trainer):
            self.checkpointing.save_last(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave between two epochs, where the one that ended is saved."""
        if self._asked(trainer) and self.checkpointing.is_saved(trainer):
            self.training = False
            raise Interrupted(self.received)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is nothing to save."""
        self.training = False
        if self.received:
            raise Interrupted(self.received)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise when the resumed run had already trained to its end, where no train end is announced."""
        self.training = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Where the epoch's batches are done but not its validation, say so in the loop's progress."""
        if not self._validation_pending:
            return
        loops = checkpoint["loops"]["fit_loop"]
        batches = loops["epoch_loop.batch_progress"]
        for count in ("total", "current"):
            batches[count]["completed"] = batches[count]["processed"]
        loops["epoch_loop.val_loop.batch_progress"] = _NOT_BEGUN

    def _asked(self, trainer: Trainer) -> bool:
        """Whether any process received a signal; all of them must agree to leave together."""
        if trainer.world_size == 1:
            return self.received > 0
        import torch

        asked = trainer.strategy.reduce(
            torch.tensor(float(self.received), device=trainer.strategy.root_device), reduce_op="max"
        )
        self.received = int(asked)
        return self.received > 0

    def _leave(self, trainer: Trainer) -> None:
        self.checkpointing.save_last(trainer)
        self.training = False
        raise Interrupted(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number
        if not self.training:
            raise Interrupted(number)
