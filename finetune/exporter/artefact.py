"""An exported directory: what goes into it, and how its metadata.json is written, read and verified.

``metadata.json`` describes the model completely (classes in order, preprocessing, temperature, inputs and outputs) and
carries the sha256 of every file beside it and of itself. A hash detects damage and accidents; it is no signature, so
opening an artefact must be safe whoever wrote it: every reader here parses data and runs none of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from finetune.checkpoint import Checkpoint
from finetune.errors import CheckpointError
from finetune.preprocessing import Preprocessing

METADATA = "metadata.json"
MODEL_CARD = "README.md"
FORMAT = 1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Description:
    """What every artefact says inside its own model file, so that it can be used without the files around it."""

    task: Literal["multiclass", "multilabel"]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {
            "task": self.task,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "temperature": self.temperature,
            "thresholds": None if self.thresholds is None else list(self.thresholds),
        }

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Description:
        """What a checkpoint says."""
        return cls(
            task="multilabel" if checkpoint.task == "multilabel" else "multiclass",
            classes=checkpoint.classes,
            preprocessing=checkpoint.preprocessing,
            temperature=checkpoint.temperature,
            thresholds=checkpoint.thresholds,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Description:
        """The inverse of ``to_dict``; other keys are ignored. Raises ``CheckpointError`` when one is absurd."""
        try:
            classes = tuple(str(name) for name in fields["classes"])
            thresholds = fields["thresholds"]
            description = cls(
                task=fields["task"],
                classes=classes,
                preprocessing=Preprocessing.from_dict(fields["preprocessing"]),
                temperature=float(fields["temperature"]),
                thresholds=None if thresholds is None else tuple(float(value) for value in thresholds),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the artefact's description cannot be read ({error!r})") from error
        if description.task not in ("multiclass", "multilabel") or len(set(classes)) != len(classes) or not classes:
            raise CheckpointError(
                f"the artefact describes task={description.task!r} with {len(classes)} classes; expected multiclass or "
                "multilabel with classes that differ from each other"
            )
        if not description.temperature > 0:
            raise CheckpointError(f"the artefact's temperature is {description.temperature}; expected a number above 0")
        return description

    def to_text(self) -> dict[str, str]:
        """One JSON text per key, for containers that hold strings only (ONNX properties, safetensors headers)."""
        return {key: json.dumps(value, ensure_ascii=False) for key, value in self.to_dict().items()}

    @classmethod
    def from_text(cls, texts: Mapping[str, str]) -> Description:
        """The inverse of ``to_text``."""
        try:
            return cls.from_dict({key: json.loads(texts[key]) for key in cls.__dataclass_fields__})
        except (KeyError, json.JSONDecodeError) as error:
            raise CheckpointError(f"the model file carries no readable description ({error!r})") from error


@dataclass(frozen=True)
class Exportable:
    """A trained model on its way out: ``network`` in eval mode maps normalised images B C H W to logits B K."""

    network: nn.Module
    description: Description
    backbone: dict[str, Any]
    """Its configuration, ``name`` among it: timm's name of the architecture."""
    head: dict[str, Any]
    """Its configuration."""
    calibration: Callable[[], Iterator[npt.NDArray[np.uint8]]] | None = None
    """Training images, resized and cropped (H W 3), for formats that must see numbers; None when there are none."""


class Runtime(Protocol):
    """An opened artefact. ``description`` is what its own model file says."""

    description: Description

    def logits(self, images_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits B K, uncalibrated, of images that are already resized and cropped, not yet normalised."""


@dataclass(frozen=True)
class Exported:
    """What an exporter did. ``details`` goes into metadata.json as it is; ``runtime`` is given only where the written
    file must not be opened again (a .pt2 executes pickled code).
    """

    details: dict[str, Any]
    max_difference: float | None
    """Largest difference of probabilities that is tolerated; None when accuracy alone decides (fp16, int8)."""
    max_accuracy_drop: float | None = None
    runtime: Runtime | None = None
    notes: tuple[str, ...] = field(default=())


class Exporter(Protocol):
    """Writes ``source`` below ``directory``, which exists and is empty."""

    def __call__(self, source: Exportable, directory: Path) -> Exported: ...


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_metadata(directory: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write metadata.json with the hashes of all files in ``directory`` and its own, and return it."""
    files = {
        path.relative_to(directory).as_posix(): sha256_of(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != METADATA
    }
    metadata = {"format": FORMAT, **fields, "files": files}
    metadata["sha256"] = _own_hash(metadata)
    (directory / METADATA).write_bytes(_canonical(metadata))
    return metadata


def read_metadata(directory: Path) -> dict[str, Any]:
    """metadata.json of an artefact, after every file that it lists was found unchanged. Raises ``CheckpointError``."""
    path = directory / METADATA
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"ckpt={directory} has no readable {METADATA} ({error.strerror}); expected a directory that export wrote"
        ) from error
    try:
        metadata = json.loads(content)
        if (
            not isinstance(metadata, dict)
            or _canonical(metadata) != content
            or metadata["sha256"] != _own_hash(metadata)
        ):
            raise ValueError("it is not what export wrote")
        if metadata["format"] != FORMAT:
            raise ValueError(f"it has format {metadata['format']!r}; this version reads {FORMAT}: upgrade finetune")
        files = {str(name): str(expected) for name, expected in metadata["files"].items()}
    except (KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} was changed after the export ({error}); export the checkpoint again") from error
    for name, expected in files.items():
        if name == MODEL_CARD:  # meant to be edited before it is published, and read by people only
            continue
        _verify(directory, name, expected)
    return metadata


def _verify(directory: Path, name: str, expected: str) -> None:
    path = directory / name
    if not path.resolve().is_relative_to(directory.resolve()):
        raise CheckpointError(f"{directory / METADATA} lists {name!r}, which lies outside of the directory; not opened")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; copy the whole directory, or export the checkpoint again")
    got = sha256_of(path)
    if got != expected:
        raise CheckpointError(
            f"{path} was changed or damaged after the export: its sha256 is {got[:12]}..., {METADATA} says "
            f"{expected[:12]}...; copy it again, or export the checkpoint again"
        )


def _canonical(metadata: Mapping[str, Any]) -> bytes:
    """The one way in which metadata.json is laid out; any other byte is a change."""
    return (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()


def _own_hash(metadata: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical({key: value for key, value in metadata.items() if key != "sha256"})).hexdigest()
