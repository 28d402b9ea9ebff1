"""The self-describing checkpoint: written and read here only.

A checkpoint is one file of tensors and plain data, which plain ``torch.load(weights_only=True)`` opens. Its sha256 travels
inside, as the comment of the zip archive that torch writes, so that a changed byte is noticed wherever the file goes. It
is written to ``NAME.ckpt.part`` in the same folder, synced and renamed: a killed process leaves the old file or the new
one (Lightning's own save goes through TMPDIR and tore 6 of 43 files).

What makes it self-describing is the entry ``finetune``: classes, preprocessing, configuration, metrics, temperature.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import CheckpointError, TrainingError
from finetune.preprocessing import Preprocessing

FORMAT = 1
PREFIX = "network."
PART = ".part"
_END_OF_ARCHIVE = b"PK\x05\x06"
_END_SIZE = 22
_COMMENT = b"sha256:"
_SEAL_SIZE = 2 + len(_COMMENT) + 64


@dataclass(frozen=True)
class Checkpoint:
    """A model and everything needed to use it. ``state_dict`` has the keys ``backbone.*`` and ``head.*``."""

    path: Path
    state_dict: dict[str, Tensor]
    task: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    config: dict[str, Any]
    backbone: dict[str, Any]
    metrics: dict[str, Any]
    temperature: float
    thresholds: tuple[float, ...] | None
    versions: dict[str, str]
    monitor: dict[str, Any]


def describe(
    *,
    task: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    config: dict[str, Any],
    backbone: dict[str, Any],
    versions: dict[str, str],
) -> dict[str, Any]:
    """The plain ``finetune`` entry of a checkpoint, before anything was measured."""
    return {
        "format": FORMAT,
        "task": task,
        "classes": list(classes),
        "preprocessing": preprocessing.to_dict(),
        "config": config,
        "backbone": backbone,
        "metrics": {},
        "temperature": 1.0,
        "thresholds": None,
        "versions": versions,
        "monitor": {},
    }


def weights_payload(card: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    """The network as it stands, as the content of a checkpoint that is used and not resumed."""
    weights = {
        PREFIX + name: value.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    return {"finetune": dict(card), "state_dict": weights, "epoch": 0, "global_step": 0}


def write_checkpoint(payload: Mapping[str, Any], path: Path, keep: Path | None = None) -> None:
    """Write ``payload`` (tensors and plain data), sealed with its hash, whole or not at all.

    What stood at ``path`` becomes ``keep``, once the new file is safe on the disk.

    Raises:
        TrainingError: the disk is full or the file cannot be written; what stood there before is untouched.
    """
    buffer = io.BytesIO()
    torch.save(dict(payload), buffer)
    archive = buffer.getbuffer()  # no copy of it is made: a checkpoint may be large
    sealed = (archive[:-2], _seal_of(archive))
    part = path.with_name(path.name + PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_synced(part, *sealed)
        if keep is not None and path.exists():
            path.replace(keep)
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainingError(
            f"{path} could not be written ({error.strerror or error}; {len(archive) / 2**20:.0f} MiB were needed); "
            "the checkpoint that stood there before is intact. Free some space, then continue with resume=auto"
        ) from error


def seal(archive: bytes) -> bytes:
    """A zip archive without a comment, with its sha256 as the comment (2 bytes of length, ``sha256:``, 64 hex digits)."""
    return archive[:-2] + _seal_of(archive)


def _seal_of(archive: bytes | memoryview) -> bytes:
    """What takes the place of the last two bytes of the archive."""
    if archive[-_END_SIZE : -_END_SIZE + 4] != _END_OF_ARCHIVE or archive[-2:] != b"\0\0":
        raise ValueError("torch.save did not write a plain zip archive; the seal has no place to stand")
    comment = _COMMENT + hashlib.sha256(archive[:-2]).hexdigest().encode()
    return struct.pack("<H", len(comment)) + comment


def seal_is_whole(content: bytes) -> bool | None:
    """Whether the sha256 in the seal is that of the content; None when there is no seal."""
    body, seal_found = memoryview(content)[:-_SEAL_SIZE], content[-_SEAL_SIZE:]
    if not seal_found[2:].startswith(_COMMENT):
        return None
    comment = _COMMENT + hashlib.sha256(body).hexdigest().encode()
    return seal_found == struct.pack("<H", len(comment)) + comment


def read_payload(path: Path) -> dict[str, Any]:
    """The file's content as plain data and tensors, after its hash was checked.

    Raises:
        CheckpointError: no such file, a changed byte, or a file that holds more than tensors and plain data.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not there; a checkpoint that `finetune.train` wrote is expected")
    content = path.read_bytes()
    whole = seal_is_whole(content)
    if whole is None:
        raise CheckpointError(
            f"{path} carries no sha256: it is cut short, changed, or not written by `finetune.train`. Foreign weights "
            f"go in as backbone.weights={path}"
        )
    if not whole:
        raise CheckpointError(f"{path} was damaged or changed: its content does not have the sha256 it carries")
    return _unpickle(content, path)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """A model from one of our checkpoints, hash checked, nothing executed.

    Raises:
        CheckpointError: not there, damaged, of another kind, or written by a newer version.
    """
    path = Path(path)
    payload = read_payload(path)
    card = payload.get("finetune")
    if not isinstance(card, dict) or "classes" not in card:
        raise CheckpointError(
            f"{path} is no checkpoint of this toolkit (it has no entry 'finetune'). Foreign weights go in as "
            f"backbone.weights={path}"
        )
    if card["format"] > FORMAT:
        raise CheckpointError(f"{path} has format {card['format']}, this version reads up to {FORMAT}; update finetune")
    weights = payload["state_dict"]
    return Checkpoint(
        path=path,
        state_dict={name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)},
        task=card["task"],
        classes=tuple(card["classes"]),
        preprocessing=Preprocessing.from_dict(card["preprocessing"]),
        config=card["config"],
        backbone=card["backbone"],
        metrics=card["metrics"],
        temperature=card["temperature"],
        thresholds=None if card["thresholds"] is None else tuple(card["thresholds"]),
        versions=card["versions"],
        monitor=card["monitor"],
    )


def newest_whole(folder: Path, names: tuple[str, ...]) -> tuple[Path | None, list[str]]:
    """The whole checkpoint with the highest recorded step among ``names``, and why others were passed over.

    The step is read from the file, never from the clock.
    """
    found: list[tuple[int, Path]] = []
    passed_over: list[str] = []
    for path in (folder / name for name in names):
        if not path.exists():
            continue
        try:
            found.append((int(read_payload(path)["global_step"]), path))
        except CheckpointError as error:
            passed_over.append(str(error))
    newest = max(found, key=lambda pair: pair[0])[1] if found else None
    return newest, passed_over


def sweep_litter(folder: Path) -> None:
    """Remove what a killed save left behind."""
    for part in folder.glob(f"*{PART}"):
        part.unlink(missing_ok=True)  # another process of this run sweeps too


def _unpickle(content: bytes, path: Path) -> dict[str, Any]:
    try:
        payload = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        named = re.search(r"GLOBAL (\S+)", str(error))  # torch's own advice is to load the file unsafely
        reason = f"it asks for {named[1]}, which was not run" if named else str(error).splitlines()[0][:200]
        raise CheckpointError(f"{path} is no checkpoint of tensors and plain data ({reason})") from error
    if not isinstance(payload, dict) or "state_dict" not in payload:
        raise CheckpointError(f"{path} has no state_dict; a checkpoint that `finetune.train` wrote is expected")
    return payload


def _write_synced(path: Path, *parts: bytes | memoryview) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
