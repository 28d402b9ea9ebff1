"""Opens whatever ``ckpt=`` names: a training checkpoint or an artefact that export wrote; nothing in it is executed.

An artefact's metadata.json names its exporter, whose module's ``load`` opens it. A .pt2 is never opened: loading one
executes pickled code (CVE-2026-4538).
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import CheckpointError
from finetune.exporter.artefact import METADATA, Description, Runtime

if TYPE_CHECKING:
    from finetune.cache.features import FeatureCache
    from finetune.pooled import PooledScores

_EXPORTERS = Path(__file__).parent / "exporter"


def open_runtime(ckpt: str | Path, *, device: str = "auto") -> Runtime:
    """A runtime for a .ckpt file (or its http address), an exported directory or the model file inside of one.

    Raises:
        CheckpointError: not there, damaged, or of a kind that is not opened.
    """
    from finetune.download import local_copy

    path = local_copy(str(ckpt)).expanduser()
    if path.suffix == ".pt2":
        raise CheckpointError(
            f"ckpt={path}: opening a .pt2 file can execute code that is hidden in it, so it is written and never read "
            "here; give the checkpoint it was exported from, or another artefact (exporter=onnx, safetensors, timm)"
        )
    if (path / METADATA).is_file():
        return _open_artefact(path)
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        hint = (
            f"say ckpt={best}" if best.is_file() else f"expected a .ckpt file or an exported directory with {METADATA}"
        )
        raise CheckpointError(f"ckpt={path} is a directory; {hint}")
    if path.suffix != ".ckpt" and path.is_file() and (path.parent / METADATA).is_file():
        return _open_artefact(path.parent)
    return _open_checkpoint(path, device)


def open_pooled(runtime: Runtime, cache: FeatureCache) -> PooledScores | None:
    """The stored features of a runtime that came from a checkpoint; an artefact computes as its users will."""
    from finetune.pooled import PooledScores
    from finetune.torch_runtime import TorchRuntime

    if not isinstance(runtime, TorchRuntime) or runtime.backbone is None:
        return None
    return PooledScores(cache, runtime, runtime.backbone)


def training_config(ckpt: str) -> dict[str, Any]:
    """The configuration that a checkpoint's run was made with; empty for an artefact, which carries none."""
    from finetune.checkpoint import read_checkpoint
    from finetune.download import local_copy

    path = local_copy(ckpt).expanduser()
    return read_checkpoint(path).config if path.suffix == ".ckpt" else {}


def _open_checkpoint(path: Path, device: str) -> Runtime:
    from finetune.build import network_from_checkpoint
    from finetune.checkpoint import read_checkpoint
    from finetune.torch_runtime import TorchRuntime

    checkpoint = read_checkpoint(path)
    description = Description.of(checkpoint)
    return TorchRuntime(network_from_checkpoint(checkpoint), description, device, checkpoint.config["backbone"])


def _open_artefact(directory: Path) -> Runtime:
    try:
        name = json.loads((directory / METADATA).read_bytes())["exporter"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"ckpt={directory}: its {METADATA} cannot be read ({error!r}); export it again"
        ) from error
    known = sorted(file.stem for file in _EXPORTERS.glob("*.py"))
    if name not in known:
        raise CheckpointError(f"ckpt={directory} was written by exporter={name!r}, which this version does not have")
    module = importlib.import_module(f"finetune.exporter.{name}")
    if not hasattr(module, "load"):
        raise CheckpointError(
            f"ckpt={directory} was written by exporter={name}, whose files are not opened here; give the checkpoint it "
            "was exported from"
        )
    runtime: Runtime = module.load(directory)
    return runtime
