"""The keys that every data source shares: how images are loaded and how they are split; values checked here.

``LoaderOptions`` is what the data module reads; ``SplitOptions`` what the splitting reads. Problems are returned, not
raised, so that a source reports all of its own together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from finetune.errors import ConfigError

BatchSize = int | Literal["auto"]
AUTO = 32
"""Images a step sees with ``data.batch_size=auto``."""
SPLIT_BY = "image, folder, regex:PATTERN or (data=csv) column:NAME"


@dataclass(frozen=True)
class LoaderOptions:
    """Keys of the loader: ``num_workers`` None means one process per core, ``max_bad_fraction`` stops a run."""

    image_size: int
    batch_size: BatchSize
    num_workers: int | None
    sampler: Literal["shuffle", "balanced"]
    cache: Literal["none", "ram", "disk"]
    cache_gb: float
    max_bad_fraction: float

    @property
    def images_per_step(self) -> int:
        """Images of one process's batch; ``auto`` may cut it into parts that fit the memory."""
        return AUTO if self.batch_size == "auto" else self.batch_size

    def problems(self) -> list[ConfigError]:
        """What is out of range."""
        found = []
        for key, least in (("image_size", 8), ("batch_size", 1), ("num_workers", 0)):
            value = getattr(self, key)
            if value not in (None, "auto") and value < least:
                found.append(ConfigError(f"data.{key}={value} is too small; expected at least {least}"))
        if not 0 < self.cache_gb < float("inf"):
            found.append(ConfigError(f"data.cache_gb={self.cache_gb}; expected more than 0 gigabytes"))
        if not 0 <= self.max_bad_fraction < 1:
            found.append(ConfigError(f"data.max_bad_fraction={self.max_bad_fraction}; expected 0 or more and below 1"))
        return found


@dataclass(frozen=True)
class SplitOptions:
    """Keys of the split; ``fold`` counts from 0."""

    seed: int
    val_fraction: float
    test_fraction: float
    split_by: str | None
    split_file: str | None
    fold: int | None
    folds: int | None

    def problems(self) -> list[ConfigError]:
        """What is out of range or does not go together."""
        found = list[str]()
        for key in ("val_fraction", "test_fraction"):
            value = getattr(self, key)
            if not 0 <= value < 1:
                found.append(f"data.{key}={value}; expected 0 or more and below 1 (0.2 is a fifth)")
        if not found and self.val_fraction + self.test_fraction >= 1:
            total = self.val_fraction + self.test_fraction
            found.append(f"data.val_fraction + data.test_fraction = {total:g}: nothing is left to train on")
        return [ConfigError(text) for text in [*found, *self._fold_problems(), *self._split_by_problems()]]

    def _fold_problems(self) -> list[str]:
        if self.fold is None and self.folds is None:
            return []
        if self.fold is None or self.folds is None:
            return ["data.fold and data.folds go together: data.fold=0 data.folds=5 is the first of five"]
        found = []
        if self.folds < 2:
            found.append(f"data.folds={self.folds}; expected at least 2")
        elif not 0 <= self.fold < self.folds:
            found.append(f"data.fold={self.fold}; expected 0 to {self.folds - 1} (data.folds={self.folds})")
        if self.split_file is not None:
            found.append("data.split_file already says which image validates; leave out data.fold and data.folds")
        return found

    def _split_by_problems(self) -> list[str]:
        if self.split_by is None or self.split_by in ("image", "folder"):
            return []
        kind, _, rest = self.split_by.partition(":")
        if kind not in ("regex", "column") or not rest:
            return [f"data.split_by={self.split_by}; expected {SPLIT_BY}"]
        if kind == "regex":
            try:
                re.compile(rest)
            except re.error as error:
                return [f"data.split_by={self.split_by}: not a regular expression ({error})"]
        return []
