"""Weights and metadata without a program: ``model.safetensors``, which nothing can be hidden in.

When to use: to archive a model or to move it between machines that have this package; evaluate, predict and export take
the directory wherever they take a checkpoint. Cost: the weights' size on disk, a tenth of a second to open.

Source: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import CheckpointError
from finetune.exporter.artefact import Description, Exportable, Exported, read_metadata

if TYPE_CHECKING:
    from finetune.checkpoint import Checkpoint
    from finetune.torch_runtime import TorchRuntime

MODEL = "model.safetensors"
_CONFIG = "config"


class SafetensorsExporter:
    """Writes ``model.safetensors``: tensors ``backbone.*`` and ``head.*``, description and architecture as header."""

    def __init__(self, *, max_difference: float = 1e-4) -> None:
        self.max_difference = max_difference

    def __call__(self, source: Exportable, directory: Path) -> Exported:
        """Write ``directory/model.safetensors``."""
        from safetensors.torch import save_file

        tensors = {
            name: value.detach().cpu().contiguous().clone() for name, value in source.network.state_dict().items()
        }
        architecture = {"backbone": {**source.backbone, "weights": "none"}, "head": source.head}
        save_file(tensors, directory / MODEL, {**source.description.to_text(), _CONFIG: json.dumps(architecture)})
        height, width = source.description.preprocessing.size
        details: dict[str, Any] = {
            "input": {
                "name": "images_BCHW",
                "dtype": "float32",
                "layout": "BCHW",
                "shape": ["batch", 3, height, width],
            },
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", len(source.description.classes)]}],
        }
        return Exported(details, max_difference=self.max_difference)


def load(directory: Path) -> TorchRuntime:
    """Open a directory that this exporter wrote, after its hashes were checked. Raises ``CheckpointError``."""
    from finetune.build import network_from_checkpoint
    from finetune.torch_runtime import TorchRuntime

    checkpoint = read(directory)
    description = Description.of(checkpoint)
    return TorchRuntime(network_from_checkpoint(checkpoint), description)


def read(directory: Path) -> Checkpoint:
    """The directory as a checkpoint: weights, architecture and description."""
    from safetensors import SafetensorError, safe_open

    from finetune.checkpoint import Checkpoint

    metadata = read_metadata(directory)
    path = directory / MODEL
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        config = json.loads(header[_CONFIG])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no safetensors file that export wrote ({error!r})") from error
    description = Description.from_text(header)
    return Checkpoint(
        path=path,
        state_dict=state_dict,
        task=description.task,
        classes=description.classes,
        preprocessing=description.preprocessing,
        config=config,
        backbone=metadata["backbone"],
        metrics=metadata["metrics"],
        temperature=description.temperature,
        thresholds=description.thresholds,
        versions=metadata["versions"],
        monitor={},
    )
