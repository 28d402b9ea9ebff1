"""A content-addressed store of activations: what was computed once is read by every epoch, run and job that needs it.

A key names everything that an activation depends on besides the image (``key_of``); below it, shards map the sha256 of
an image's bytes to its activation. A shard is written beside its place, synced and renamed, so a killed writer leaves
whole shards or none; writers of one key take turns by a file lock, which the system releases when a process dies, so
concurrent jobs compute each image once. Where the disk is full or the folder may not be written, what was computed is
handed over in memory. Reading is memory-mapped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
Shard = tuple[Tensor, Digests]
"""Activations and the digests of their images, first dimension equal."""
_SHARD_BYTES = 64 * 2**20
_SHARD_S = 60.0
"""A killed writer loses at most so many seconds of work."""
log = logging.getLogger(__name__)


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


class Fetched(NamedTuple):
    """``features``, how many of them were ``there`` before, and why some could not be stored (empty: they were)."""

    features: Features
    there: int
    refused: str


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


def default_root() -> Path:
    """``finetune/features`` below the user's cache directory (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "finetune" / "features"


class FeatureStore:
    """Keys below ``root``; nothing is created before something is stored."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, key: str, digests: Digests) -> bool:
        """Whether every one of these images is stored."""
        return bool(_locate(_shards(self._folder(key), digests), digests).present_N.all())

    def fetch(self, key: str, digests: Digests, compute: Compute) -> Fetched:
        """Activations of the images with these digests.

        ``compute`` is called at most once, with the positions of the first occurrence of each missing image, and may
        leave images out (unreadable ones); those stay absent. A disk that is full or read-only is no error: what could
        not be stored stays in memory, and ``refused`` says why.
        """
        folder = self._folder(key)
        known = _locate(_shards(folder, digests), digests)
        if known.present_N.all():
            _touch(folder)
            return Fetched(known, len(digests), "")
        kept: list[Shard] = []
        refused = ""
        with ExitStack() as stack:
            try:
                stack.enter_context(_turn(folder))
            except OSError as error:
                refused = str(error)
            known = _locate(_shards(folder, digests), digests)  # another process may have been faster
            missing = np.flatnonzero(~known.present_N & digests.any(axis=1))  # zeros: the file could not be read
            first = missing[np.unique(digests[missing], axis=0, return_index=True)[1]]
            if len(first):
                kept, refused = _write_all(folder, digests, compute(np.sort(first)), refused)
        return Fetched(_locate([*_shards(folder, digests), *kept], digests), int(known.present_N.sum()), refused)

    def sizes(self) -> list[tuple[str, int, float]]:
        """(key, bytes, last use in seconds since the epoch), least recently used first."""
        folders = [folder for folder in self.root.glob("*/*") if folder.is_dir()]
        rows = [
            (folder.name, sum(file.stat().st_size for file in folder.iterdir()), folder.stat().st_mtime)
            for folder in folders
        ]
        return sorted(rows, key=lambda row: row[2])

    def prune(self, max_bytes: int) -> list[str]:
        """Delete least recently used keys, none that is being filled, until at most ``max_bytes`` remain.

        Gives the keys that went. Runs that have read them keep what they have.
        """
        rows = self.sizes()
        total = sum(size for _, size, _ in rows)
        gone: list[str] = []
        for key, size, _ in rows:
            if total <= max_bytes:
                break
            if _remove(self._folder(key)):
                total -= size
                gone.append(key)
        return gone

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key


def _shards(folder: Path, digests: Digests) -> list[Shard]:
    """The whole shards of ``folder`` with any of these images, their activations memory-mapped.

    The others stay closed: two megabytes become resident for each shard that is mapped (Linux maps ahead).
    """
    wanted = np.sort(_sortable(digests))
    found: list[Shard] = []
    for shard in sorted(folder.glob("*.safetensors")) if len(wanted) else ():
        try:
            with safe_open(shard, framework="pt") as file:
                names = file.get_tensor("digests").numpy()
                stored = _sortable(names)
                if (wanted[np.minimum(np.searchsorted(wanted, stored), len(wanted) - 1)] == stored).any():
                    found.append((file.get_tensor("features"), names))
        except (SafetensorError, OSError):  # not ours, or broken by a file system's crash: as if it were not there
            continue
    return found


def _locate(shards: list[Shard], digests: Digests) -> Features:
    """Where each digest stands among ``shards``."""
    pieces = tuple(values for values, _ in shards)
    names = [digests for _, digests in shards]
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
    return Features(pieces, piece_N, row_N)


def _sortable(digests: Digests) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(digests).view("S32").reshape(-1)


def _write_all(folder: Path, digests: Digests, chunks: Iterator[Chunk], refused: str) -> tuple[list[Shard], str]:
    """Write shards as they fill up; once that fails (``refused``), keep the rest. Gives what was kept, and why."""
    pending: list[Chunk] = []
    kept: list[Shard] = []
    started = time.monotonic()

    def flush() -> None:
        nonlocal refused, started
        positions = np.concatenate([places for places, _ in pending])
        shard = (torch.cat([values for _, values in pending]).contiguous(), digests[positions].copy())
        refused = refused or _try_write(folder, shard)
        if refused:
            kept.append(shard)
        pending.clear()
        started = time.monotonic()

    for chunk in chunks:
        pending.append(chunk)
        if sum(values.nbytes for _, values in pending) >= _SHARD_BYTES or time.monotonic() - started >= _SHARD_S:
            flush()
    if pending:
        flush()
    return kept, refused


def _try_write(folder: Path, shard: Shard) -> str:
    """Write one shard whole; gives the reason where that is impossible."""
    values, digests = shard
    content = save({"features": values, "digests": torch.from_numpy(digests)})
    target = folder / f"{uuid.uuid4().hex}.safetensors"
    part = target.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        return str(error)
    return ""


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the key's lock; whoever waits finds the work done. Litter of killed writers is removed on entry."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("features  waiting for another run that computes the same ones")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for part in folder.glob("*.part"):
            part.unlink()
        yield


def _remove(folder: Path) -> bool:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(folder)
    return True


def _touch(folder: Path) -> None:
    with suppress(OSError):  # a store that may only be read has no order of use
        os.utime(folder)
