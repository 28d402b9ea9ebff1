"""The LightningDataModule: loaders over the rows of a table, keyed by seed, epoch and position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import lightning
import numpy as np
import torch
from torch import Tensor

from finetune.cache.features import FeatureReuse, ImageSource
from finetune.cache.keys import PLAIN, digest_files
from finetune.cache.store import Digests, Features
from finetune.data.ahead import ahead
from finetune.data.dataset import ImageRows, Transform
from finetune.data.decoded import DecodedCache
from finetune.data.loader import KeyedLoader, Position, workers_for
from finetune.data.options import LoaderOptions
from finetune.data.sampler import KeyedBatches, Rows
from finetune.data.stored import StoredRows
from finetune.data.table import Table
from finetune.errors import ConfigError, DataError
from finetune.preprocessing import Preprocessing


class ImageData(lightning.LightningDataModule):
    """Training in keyed order with ``transform``; evaluation in table order with the network's own preprocessing.

    Raises:
        DataError: fewer training images than processes.
        ConfigError: a balanced sampler for multi-label data, where no image has one class.

    ``parts`` may be set before the loaders are asked for: every batch is then cut into so many.
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
        self.parts = 1
        self.reuse: FeatureReuse | None = None
        self.decoded = None if options.cache == "none" else DecodedCache(table, options.cache, options.cache_gb)

    @property
    def images_at_once(self) -> int:
        """Images that pass the network together: a process's batch, or the largest part of one."""
        return self.options.images_per_step if self.parts == 1 else math.ceil(self.largest_batch / self.parts)

    @property
    def largest_batch(self) -> int:
        """Images in the largest training batch of this process."""
        assert self.trainer is not None
        share = len(self.table.rows("train")) // self.trainer.world_size
        return math.ceil(share / math.ceil(share / self.options.images_per_step))

    def train_dataloader(self) -> KeyedLoader:
        """Every training image once an epoch (or balanced draws), from where the run stands."""
        trainer = self.trainer
        assert trainer is not None
        images = len(self.table.rows("train"))
        if images < trainer.world_size:
            raise DataError(f"{images} training images for {trainer.world_size} processes; lower trainer.devices")

        def position() -> Position:
            return Position(trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready)

        return self._training_loader(position)

    def trial_loader(self, epoch: int) -> KeyedLoader:
        """The training batches of ``epoch`` before there is a trainer, for a trial that the run does not see."""
        return self._training_loader(lambda: Position(epoch, 0))

    def _training_loader(self, position: Callable[[], Position]) -> KeyedLoader:
        rows = self.table.rows("train")
        targets_N = self.table.targets[rows] if self.options.sampler == "balanced" else None

        def stored(epoch: int) -> StoredRows | None:
            return self.stored(rows, epoch, training=True)

        images = ImageRows(self.table, self.preprocessing, self.transform, self.seed, decoded=self.decoded)
        batches = self._batches(rows, targets_N, self.options.sampler, shared=True)
        return KeyedLoader(images, batches, position, stored, workers_for(len(rows), self.options.num_workers))

    def val_dataloader(self) -> KeyedLoader:
        """The validation images, once each, in table order, or what the cache has of them in this epoch."""
        trainer = self.trainer
        assert trainer is not None
        rows = self.table.rows("val")

        def stored(epoch: int) -> StoredRows | None:
            return self.stored(rows, epoch, training=False)

        return self._evaluation_loader(rows, lambda: Position(trainer.current_epoch, 0), stored, shared=True)

    def evaluation_loader(self, rows: Rows, features: Features | None) -> KeyedLoader:
        """Any rows, once each, as the network sees them in deployment, or their ``features`` in the images' place.

        All of them, in this process: the final evaluation is the first process's alone.
        """
        stored = None if features is None else StoredRows(features, rows, self.table.targets)
        return self._evaluation_loader(rows, lambda: Position(0, 0), lambda _: stored, shared=False)

    def training_images(self, device: torch.device) -> Iterator[Tensor]:
        """Normalised training images, at most 2,048, for statistics; nothing is read before the first is asked for."""
        rows = self.table.rows("train")[:2048]
        for _, images_BCHW in self.image_source().images(rows, PLAIN):
            yield self.preprocessing.normalize(images_BCHW.to(device))

    def image_source(self) -> ImageSource:
        """Digests and decoded images of any rows, for the feature cache."""
        return ImageSource(self._digests, self._images, self._example)

    def stored(self, rows: Rows, epoch: int, *, training: bool) -> StoredRows | None:
        """Stored activations of ``rows`` for ``epoch``, where the cache has or can compute them."""
        if self.reuse is None:
            return None
        features = self.reuse.features(epoch, rows, training=training)
        return None if features is None else StoredRows(features, rows, self.table.targets)

    def _example(self) -> Tensor:
        return next(images_BCHW for _, images_BCHW in self._images(self.table.rows("train")[:4], PLAIN))

    def _digests(self, rows: Rows) -> Digests:
        hashes = self.table.hashes
        if hashes is not None and hashes[rows].any(axis=1).all():
            return hashes[rows]
        return digest_files(self.table.path(int(row)) for row in rows)

    def _images(self, rows: Rows, view: int) -> Iterator[tuple[Rows, Tensor]]:
        """Batches of readable rows, decoded and, for a view, augmented by the key of their content."""
        keys = None
        if view != PLAIN:
            keys = np.zeros(len(self.table), dtype=np.int64)
            keys[rows] = np.ascontiguousarray(self._digests(rows)[:, :4]).view(np.uint32)[:, 0]
        transform = None if view == PLAIN else self.transform
        images = ImageRows(self.table, self.preprocessing, transform, self.seed, keys)
        batches = KeyedBatches(rows, None, self.images_at_once, self.seed, 0, 1, sampler="sequential")
        workers = workers_for(len(rows), self.options.num_workers)
        loader = KeyedLoader(images, batches, lambda: Position(max(view, 0), 0), lambda _: None, workers)
        for batch in loader if workers else ahead(iter(loader)):
            if len(batch.indices):
                yield batch.indices.numpy(), batch.inputs

    def _evaluation_loader(
        self, rows: Rows, position: Callable[[], Position], stored: Callable[[int], StoredRows | None], *, shared: bool
    ) -> KeyedLoader:
        images = ImageRows(self.table, self.preprocessing, None, self.seed, decoded=self.decoded)
        batches = self._batches(rows, None, "sequential", shared=shared)
        return KeyedLoader(images, batches, position, stored, workers_for(len(rows), self.options.num_workers))

    def _batches(
        self,
        rows: Rows,
        targets_N: Rows | None,
        sampler: Literal["shuffle", "balanced", "sequential"],
        *,
        shared: bool,
    ) -> KeyedBatches:
        """Batches of ``rows``: this process's share of them when they are ``shared`` out, else all."""
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None and shared else (0, 1)
        if sampler == "sequential":
            size, parts = self.images_at_once, 1
        else:
            size, parts = self.options.images_per_step, self.parts
        return KeyedBatches(rows, targets_N, size, self.seed, rank, world_size, sampler=sampler, parts=parts)
