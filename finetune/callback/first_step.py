"""When the first optimizer step of this process was done: what a user waits for before anything is learned.

``seconds`` counts from the moment it is given, which for a command is the start of its process, so interpreter, imports,
configuration, examination of the data, network and features are all in it. A run whose head is solved and that has no
epochs takes no step. Costs nothing.
"""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class FirstStep(Callback):
    """``begun`` is a moment of ``time.monotonic``; ``seconds`` stays None until a step is taken."""

    def __init__(self, begun: float) -> None:
        self.seconds: float | None = None
        self._begun = begun
        self._steps_before = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run begins at a step."""
        self._steps_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock after the first batch that ended in a step."""
        if self.seconds is None and trainer.global_step > self._steps_before:
            self.seconds = time.monotonic() - self._begun
