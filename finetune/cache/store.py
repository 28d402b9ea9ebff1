"""A content-addressed store of activations: what was computed once is read by every epoch, run and job that needs it.

A key names everything that an activation depends on besides the image (``key_of``); below it, shards map the sha256 of an
image's bytes to its activation. A shard is written beside its place, synced and renamed, so a killed writer leaves
whole shards or none; writers of one key take turns by a file lock, which the system releases when a process dies, so
concurrent jobs compute each image once. Reading is memory-mapped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

Digests = npt.NDArray[np.uint8]
"""sha256 of images' bytes, N x 32."""
Chunk = tuple[npt.NDArray[np.int64], Tensor]
"""Positions (among those asked for) and their activations, first dimension equal."""
Compute = Callable[[npt.NDArray[np.int64]], Iterator[Chunk]]
_SHARD_BYTES = 64 * 2**20


class StoreFullError(OSError):
    """The disk has no room for what was computed; ``computed`` holds it, so that nothing is lost."""

    def __init__(self, reason: str, computed: list[Chunk]) -> None:
        super().__init__(reason)
        self.computed = computed


@dataclass(frozen=True)
class Features:
    """Activations of N images, in pieces that may be memory-mapped; a piece number of -1 means there is none."""

    pieces: tuple[Tensor, ...]
    piece_N: npt.NDArray[np.int32]
    row_N: npt.NDArray[np.int64]

    @property
    def present_N(self) -> npt.NDArray[np.bool_]:
        """Which images have an activation."""
        there: npt.NDArray[np.bool_] = self.piece_N >= 0
        return there

    def take(self, positions: npt.NDArray[np.int64]) -> Tensor:
        """Activations of some images, copied into one tensor, in the given order; all must be present."""
        pieces = self.piece_N[positions]
        found = torch.empty((len(positions), *self.pieces[0].shape[1:]), dtype=self.pieces[0].dtype)
        for number in np.unique(pieces):
            places = np.flatnonzero(pieces == number)
            rows = torch.from_numpy(self.row_N[positions[places]])
            found[torch.from_numpy(places)] = self.pieces[number][rows]
        return found


def key_of(**parts: Any) -> str:
    """The key of what ``parts`` (plain data) describe: weights, preprocessing, boundary, view, precision, versions."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def weights_digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes, types and bytes of ``tensors``, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


class FeatureStore:
    """Keys below ``root``; nothing is created before something is stored."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, key: str, digests: Digests) -> bool:
        """Whether every one of these images is stored."""
        return bool(_locate(self._folder(key), digests).present_N.all())

    def fetch(self, key: str, digests: Digests, compute: Compute) -> tuple[Features, int]:
        """Activations of the images with these digests, and how many of them were there already.

        ``compute`` is called at most once, with the positions of the first occurrence of each missing image, and may
        leave images out (unreadable ones); those stay absent.

        Raises:
            StoreFullError: the disk is full; the error carries what was computed.
        """
        folder = self._folder(key)
        known = _locate(folder, digests)
        if known.present_N.all():
            _touch(folder)
            return known, len(digests)
        with _turn(folder):
            known = _locate(folder, digests)  # another process may have been faster
            there = int(known.present_N.sum())
            missing = np.flatnonzero(~known.present_N)
            first = missing[np.unique(digests[missing], axis=0, return_index=True)[1]]
            if len(first):
                _write_all(folder, digests, compute(np.sort(first)))
        return _locate(folder, digests), there

    def sizes(self) -> list[tuple[str, int, float]]:
        """(key, bytes, last use in seconds since the epoch), least recently used first."""
        folders = [folder for folder in self.root.glob("*/*") if folder.is_dir()]
        rows = [
            (folder.name, sum(file.stat().st_size for file in folder.iterdir()), folder.stat().st_mtime)
            for folder in folders
        ]
        return sorted(rows, key=lambda row: row[2])

    def prune(self, max_bytes: int) -> list[str]:
        """Delete least recently used keys until at most ``max_bytes`` remain; gives the keys that went."""
        rows = self.sizes()
        total = sum(size for _, size, _ in rows)
        gone: list[str] = []
        for key, size, _ in rows:
            if total <= max_bytes:
                break
            shutil.rmtree(self._folder(key))
            total -= size
            gone.append(key)
        return gone

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key


def in_memory(chunks: list[Chunk], count: int) -> Features:
    """Features that stand on no disk."""
    piece_N = np.full(count, -1, dtype=np.int32)
    row_N = np.zeros(count, dtype=np.int64)
    for number, (positions, values) in enumerate(chunks):
        piece_N[positions] = number
        row_N[positions] = np.arange(len(values))
    return Features(tuple(values for _, values in chunks), piece_N, row_N)


def _locate(folder: Path, digests: Digests) -> Features:
    """Where each digest stands among the whole shards of ``folder``."""
    pieces: list[Tensor] = []
    names: list[Digests] = []
    for shard in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as file:
                pieces.append(file.get_tensor("features"))
                names.append(file.get_tensor("digests").numpy())
        except (SafetensorError, OSError):  # not ours, or broken by a file system's crash: as if it were not there
            continue
    piece_N = np.full(len(digests), -1, dtype=np.int32)
    row_N = np.zeros(len(digests), dtype=np.int64)
    if pieces:
        piece_of = np.repeat(np.arange(len(names), dtype=np.int32), [len(part) for part in names])
        row_of = np.concatenate([np.arange(len(part)) for part in names])
        stored = _sortable(np.concatenate(names))
        order = np.argsort(stored, kind="stable")
        wanted = _sortable(digests)
        place = np.minimum(np.searchsorted(stored, wanted, sorter=order), len(order) - 1)
        found = order[place]
        hit = stored[found] == wanted
        piece_N[hit] = piece_of[found[hit]]
        row_N[hit] = row_of[found[hit]]
    return Features(tuple(pieces), piece_N, row_N)


def _sortable(digests: Digests) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(digests).view("S32").reshape(-1)


def _write_all(folder: Path, digests: Digests, chunks: Iterator[Chunk]) -> None:
    """Write shards as they fill up; on a full disk, compute the rest and hand over everything."""
    pending: list[Chunk] = []
    failed: OSError | None = None
    for chunk in chunks:
        pending.append(chunk)
        if failed is None and sum(values.nbytes for _, values in pending) >= _SHARD_BYTES:
            failed = _try_write(folder, digests, pending)
            pending = pending if failed else []
    if pending and failed is None:
        failed = _try_write(folder, digests, pending)
    if failed is not None:
        raise StoreFullError(str(failed), pending)


def _try_write(folder: Path, digests: Digests, chunks: list[Chunk]) -> OSError | None:
    positions = np.concatenate([places for places, _ in chunks])
    values = torch.cat([part for _, part in chunks])
    content = save({"features": values.contiguous(), "digests": torch.from_numpy(digests[positions].copy())})
    shard = folder / f"{uuid.uuid4().hex}.safetensors"
    part = shard.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(shard)
    except OSError as error:
        part.unlink(missing_ok=True)
        return error
    return None


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the key's lock; whoever waits finds the work done. Litter of killed writers is removed on entry."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for part in folder.glob("*.part"):
            part.unlink()
        yield


def _touch(folder: Path) -> None:
    if folder.exists():
        os.utime(folder)
