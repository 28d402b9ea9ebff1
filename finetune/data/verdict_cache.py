"""Verdicts kept between runs: a file that kept its path, size and modification time is not read again.

One file per data set root below the cache folder (``$XDG_CACHE_HOME/finetune/verdicts``, or ``~/.cache``): an array of
64-bit keys, sorted, and the records beside them; a million files take 250 MB. Written whole beside the target and moved
into place, so processes may share it; a damaged or foreign file is ignored and replaced. The key includes what the
verdict depends on: this format and the versions of the decoders.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.data.table import Table
from finetune.data.verdict import RECORD, TEXTS, Verdicts

_FORMAT = 5


def default_cache_dir() -> Path:
    """Where caches of this user live (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "finetune"


class VerdictCache:
    """The verdicts on one root."""

    def __init__(self, root: Path, cache_dir: Path | None) -> None:
        folder = (cache_dir or default_cache_dir()) / "verdicts"
        real = os.fsencode(os.path.realpath(root))
        self.file = folder / f"{hashlib.sha256(real).hexdigest()[:24]}.npz"
        self.version = _version()

    def load(self, table: Table, verdicts: Verdicts) -> npt.NDArray[np.bool_]:
        """Fill in what is known; which rows (N)."""
        stored = self._read()
        known_N = np.zeros(len(table), dtype=np.bool_)
        if stored is None:
            return known_N
        stored_keys, records, texts = stored
        keys = _keys(table)
        place = np.minimum(np.searchsorted(stored_keys, keys), len(stored_keys) - 1)
        known_N = np.equal(stored_keys[place], keys)
        rows = np.flatnonzero(known_N)
        numbers = np.array([verdicts.number(text) for text in texts], dtype=np.int32)
        found = records[place[rows]]
        for name in TEXTS:
            found[name] = numbers[found[name]]
        verdicts.records[rows] = found
        return known_N

    def save(self, table: Table, verdicts: Verdicts) -> None:
        """Replace what is stored by these verdicts; a cache that cannot be written is no error."""
        keys = _keys(table)
        order = np.argsort(keys, kind="stable")
        texts = np.frombuffer(json.dumps(verdicts.texts).encode(), dtype=np.uint8)
        version = np.frombuffer(self.version.encode(), dtype=np.uint8)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(dir=self.file.parent, suffix=".part")
        except OSError:
            return
        try:
            with os.fdopen(descriptor, "wb") as stream:
                np.savez(stream, keys=keys[order], records=verdicts.records[order], texts=texts, version=version)
            Path(part).replace(self.file)
        except OSError:
            Path(part).unlink(missing_ok=True)

    def _read(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.void], list[str]] | None:
        try:
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                if stored["version"].tobytes().decode() != self.version or not len(stored["keys"]):
                    return None
                keys, records = stored["keys"], stored["records"]
                texts = json.loads(stored["texts"].tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return (keys, records, texts) if records.dtype == RECORD and len(records) == len(keys) else None


def _version() -> str:
    """What a verdict depends on besides the file."""
    versions = [f"format {_FORMAT}"]
    for package in ("pillow", "simplejpeg", "pillow-heif"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return ", ".join(versions)


def _keys(table: Table) -> npt.NDArray[np.uint64]:
    """64 bits of (path, size, time) of each row; that two of a million agree has a chance of 1 in 30 million."""
    facts = np.stack([table.sizes, table.modified_ns], axis=1).tobytes()
    digests = bytearray()
    for row in range(len(table)):
        digest = hashlib.blake2b(table.name(row), digest_size=8)
        digest.update(facts[16 * row : 16 * row + 16])
        digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype=np.uint64)
