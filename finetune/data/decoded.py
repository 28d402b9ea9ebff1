"""Decoded images kept for the next epoch: ``data.cache=ram`` or ``data.cache=disk``, up to ``data.cache_gb``.

When to use: sources that are slow to read or to decode (a network folder, large PNG or TIFF files) in phases that train
the backbone; frozen phases read every image once anyway (``cache=features``). JPEG photographs on a local disk decode
faster than they would be worth. An image is kept as it left the decoder, so training is the same to the bit with and
without. ``ram`` is one memory that all loader processes share and that ends with the run; ``disk`` are files below the
user's cache directory, named by content, which later runs find again. Once the budget is used up, the images that are
kept stay and the others are decoded as before; that is said once.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import mmap
import multiprocessing
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from finetune.data.table import Table
from finetune.data.verdict_cache import default_cache_dir
from finetune.errors import ConfigError

Image = npt.NDArray[np.uint8]
log = logging.getLogger(__name__)


class Budget:
    """Bytes that may still be kept, counted over all processes that were forked from the one that made it."""

    def __init__(self, limit_gb: float, used: int = 0) -> None:
        self.limit_gb = limit_gb
        self._used = multiprocessing.Value("q", used)
        self._said = multiprocessing.Value("b", 0)

    def take(self, size: int) -> int | None:
        """Where the taken bytes begin; None when they are too many, which is said once."""
        with self._used.get_lock():
            start = int(self._used.value)
            if start + size <= self.limit_gb * 1e9:
                self._used.value = start + size
                return start
        self.refuse(f"data.cache_gb={self.limit_gb:g} is used up")
        return None

    def refuse(self, reason: str) -> None:
        """Say once why further images are not kept."""
        with self._said.get_lock():
            if not self._said.value:
                self._said.value = 1
                log.warning("images    %s; further images are decoded in every epoch", reason)


class Kept(Protocol):
    """Decoded images by row, for one way of decoding."""

    def get(self, row: int, decode: Callable[[], Image]) -> Image: ...


class DecodedCache:
    """Gives each loader its place to keep images in."""

    def __init__(self, table: Table, kind: Literal["ram", "disk"], limit_gb: float, root: Path | None = None) -> None:
        self.table = table
        self.root = (root or default_cache_dir()) / "decoded" if kind == "disk" else None
        used = 0
        if self.root is None:
            have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if limit_gb * 1e9 > have:
                raise ConfigError(
                    f"data.cache_gb={limit_gb:g} is more than the {have / 1e9:.1f} GB of memory of this machine; "
                    "give less, or say data.cache=disk"
                )
            self._memory = mmap.mmap(-1, int(limit_gb * 1e9))
        else:
            used = sum(file.stat().st_size for file in self.root.rglob("*.npy"))
        self.budget = Budget(limit_gb, used)
        where = "in memory" if self.root is None else f"in {self.root}"
        log.info("images    decoded ones are kept %s, up to %g GB", where, limit_gb)
        self._places: dict[str, Kept] = {}

    def place(self, min_size_px: int, background: tuple[int, int, int]) -> Kept:
        """Where images go that are decoded for a short side of ``min_size_px``."""
        versions = [importlib.metadata.version(name) for name in ("simplejpeg", "pillow")]
        how = f"{min_size_px}{background}{versions}"
        if how not in self._places:
            self._places[how] = (
                _InMemory(len(self.table), self._memory, self.budget)
                if self.root is None
                else _OnDisk(self.table, self.root, self.budget, how)
            )
        return self._places[how]


class _InMemory:
    """Images one after another in shared memory; ``index_N4`` has an image's start, height, width and a flag."""

    def __init__(self, count: int, memory: mmap.mmap, budget: Budget) -> None:
        self.pixels = np.frombuffer(memory, dtype=np.uint8)
        self.index_N4 = np.frombuffer(mmap.mmap(-1, max(1, count) * 4 * 8), dtype=np.int64).reshape(-1, 4)
        self.budget = budget

    def get(self, row: int, decode: Callable[[], Image]) -> Image:
        start, height, width, there = self.index_N4[row].tolist()
        if there:
            image: Image = self.pixels[start : start + height * width * 3].reshape(height, width, 3)
            return image.copy()  # a transform may write into what it gets
        image = decode()
        place = self.budget.take(image.size)
        if place is not None:
            self.pixels[place : place + image.size] = image.reshape(-1)
            self.index_N4[row, :3] = (place, *image.shape[:2])
            self.index_N4[row, 3] = 1  # last: a process that sees the flag finds the rest
        return image


class _OnDisk:
    """One file an image, written beside its place and renamed; its name says what was decoded and how."""

    def __init__(self, table: Table, root: Path, budget: Budget, how: str) -> None:
        self.table = table
        self.root = root
        self.budget = budget
        self.how = how

    def get(self, row: int, decode: Callable[[], Image]) -> Image:
        file = self._file(row)
        try:
            kept: Image = np.load(file, allow_pickle=False)
            return kept
        except (OSError, ValueError, EOFError):  # not there, or broken
            image = decode()
        if self.budget.take(image.nbytes) is not None:
            self._write(file, image)
        return image

    def _file(self, row: int) -> Path:
        stamp = f"{self.table.path(row)}{self.table.sizes[row]}{self.table.modified_ns[row]}"
        content = self.table.sha256(row) or stamp
        name = hashlib.sha256(f"{content}{self.how}".encode(errors="surrogateescape")).hexdigest()
        return self.root / name[:2] / f"{name}.npy"

    def _write(self, file: Path, image: Image) -> None:
        part = file.with_name(f"{uuid.uuid4().hex}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as open_file:
                np.save(open_file, image, allow_pickle=False)
            part.replace(file)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            self.budget.refuse(f"{self.root} takes no more ({error})")
