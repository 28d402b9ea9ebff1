"""The LightningDataModule: loaders over the rows of a table, keyed by seed, epoch and position."""

from __future__ import annotations

import lightning
import numpy as np

from finetune.data.dataset import ImageRows, Transform
from finetune.data.loader import KeyedLoader, Position, workers_for
from finetune.data.options import LoaderOptions
from finetune.data.sampler import KeyedBatches, Rows
from finetune.data.table import Table
from finetune.errors import ConfigError, DataError
from finetune.preprocessing import Preprocessing


class ImageData(lightning.LightningDataModule):
    """Training in keyed order with ``transform``; evaluation in table order with the network's own preprocessing.

    Raises:
        DataError: fewer training images than processes.
        ConfigError: a balanced sampler for multi-label data, where no image has one class.
    """

    def __init__(
        self, table: Table, preprocessing: Preprocessing, transform: Transform, options: LoaderOptions, seed: int
    ) -> None:
        super().__init__()
        if options.sampler == "balanced" and table.task != "multiclass":
            raise ConfigError("data.sampler=balanced needs one class per image; this data set has several labels each")
        self.table = table
        self.preprocessing = preprocessing
        self.transform = transform
        self.options = options
        self.seed = seed

    def train_dataloader(self) -> KeyedLoader:
        """Every training image once an epoch (or balanced draws), from where the run stands."""
        rows = self.table.rows("train")
        trainer = self.trainer
        assert trainer is not None
        if len(rows) < trainer.world_size:
            raise DataError(f"{len(rows)} training images for {trainer.world_size} processes; lower trainer.devices")
        targets_N = self.table.targets[rows] if self.options.sampler == "balanced" else None

        def position() -> Position:
            return Position(trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready)

        images = ImageRows(self.table, self.preprocessing, self.transform, self.seed)
        return self._loader(images, rows, targets_N, position)

    def val_dataloader(self) -> KeyedLoader:
        """The validation images, once each, in table order."""
        return self.evaluation_loader(self.table.rows("val"))

    def evaluation_loader(self, rows: Rows) -> KeyedLoader:
        """Any rows, once each, in the given order, as the network sees them in deployment."""
        images = ImageRows(self.table, self.preprocessing, None, self.seed)
        return self._loader(images, rows, None, lambda: Position(0, 0), sequential=True)

    def _loader(
        self, images: ImageRows, rows: Rows, targets_N: Rows | None, position: object, *, sequential: bool = False
    ) -> KeyedLoader:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        batches = KeyedBatches(
            np.asarray(rows),
            targets_N,
            self.options.batch_size,
            self.seed,
            rank,
            world_size,
            sampler="sequential" if sequential else self.options.sampler,
        )
        workers = workers_for(len(rows), self.options.num_workers)
        return KeyedLoader(images, batches, position, workers)  # type: ignore[arg-type]
