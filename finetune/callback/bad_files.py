"""Files that break while a run trains: each named once, counted, and the run stopped when they become too many.

The data was examined before training; what breaks later is a disk or a network that fails. Such an image is left out of
its batch, never replaced by another (timm takes its neighbour, silently). ``data.max_bad_fraction`` says how many may.
"""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from finetune.data.table import Table
from finetune.errors import DataError
from finetune.types import Batch

log = logging.getLogger(__name__)


class BadFiles(Callback):
    """Reads ``Batch.unreadable`` in training and in validation.

    Args:
        table: names the images, and says how many train and validate.
        max_fraction: of these; when more are unreadable, the run stops.
    """

    def __init__(self, table: Table, max_fraction: float) -> None:
        self.table = table
        self.max_fraction = max_fraction
        self.bad: set[int] = set()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Count the batch's."""
        self._count(batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Likewise."""
        self._count(batch)

    def state_dict(self) -> dict[str, Any]:
        """The rows that were named already."""
        return {"bad": sorted(self.bad)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.bad = set(state_dict["bad"])

    def _count(self, batch: Batch) -> None:
        for row, reason in batch.unreadable:
            if row not in self.bad:
                self.bad.add(row)
                log.warning("%s cannot be read any more and is left out: %s", self.table.relative(row), reason)
        total = len(self.table.rows("train")) + len(self.table.rows("val"))
        if len(self.bad) > self.max_fraction * total:
            newest = ", ".join(self.table.relative(row) for row in sorted(self.bad)[:8])
            raise DataError(
                f"{len(self.bad)} of {total} images cannot be read any more ({newest}); at most "
                f"data.max_bad_fraction={self.max_fraction} of them may break while a run trains. The last checkpoint is "
                "sound: mend the files or the disk, then continue with resume=auto"
            )
