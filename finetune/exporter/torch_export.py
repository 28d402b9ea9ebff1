"""torch.export: a ``model.pt2`` program for PyTorch without this package, for AOTInductor and ExecuTorch.

When to use: when the other side runs PyTorch and wants a graph. It is written only: **opening a .pt2 executes pickled
code** (CVE-2026-4538), so load none that you did not write yourself, and nothing here ever does; parity is therefore
checked on the program in memory, the one that is written. Cost: 2 s for a ResNet-50.

Source: https://docs.pytorch.org/docs/stable/export.html
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from finetune.errors import CheckpointError, ExportError
from finetune.exporter.artefact import Description, Exportable, Exported
from finetune.exporter.fold import fold_batchnorm as fold
from finetune.exporter.graph_runtime import GraphRuntime
from finetune.exporter.tracing import example, quiet

MODEL = "model.pt2"
DESCRIPTION = "finetune.json"
WARNING = "Opening a .pt2 executes code: load this one where you trust where it came from, and never a foreign one."


class TorchExportExporter:
    """Writes ``model.pt2`` with a dynamic batch; the description lies inside as ``finetune.json``."""

    def __init__(self, *, fold_batchnorm: bool = True, max_difference: float = 1e-4) -> None:
        self.fold_batchnorm = fold_batchnorm
        self.max_difference = max_difference

    def __call__(self, source: Exportable, directory: Path) -> Exported:
        """Write ``directory/model.pt2``; raises ``ExportError`` when the network cannot be traced."""
        images_BCHW = example(source.description)
        network, folded = source.network, "off"
        if self.fold_batchnorm:
            result = fold(network, images_BCHW)
            network, folded = result.network, f"{result.folded} of {result.total}"
        with quiet():
            try:
                program = torch.export.export(
                    network.eval(), (images_BCHW,), dynamic_shapes=({0: torch.export.Dim("batch")},)
                )
            except Exception as error:  # torch raises many kinds; each means that the network cannot be traced
                reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                raise ExportError(f"exporter=torch_export: torch cannot trace this network: {reason}") from error
            texts = {DESCRIPTION: json.dumps(source.description.to_dict(), ensure_ascii=False)}
            torch.export.save(program, directory / MODEL, extra_files=texts)
        height, width = source.description.preprocessing.size
        details = {
            "batchnorm_folded": folded,
            "input": {
                "name": "images_BCHW",
                "dtype": "float32",
                "layout": "BCHW",
                "shape": ["batch", 3, height, width],
            },
            "outputs": [
                {"name": "logits", "dtype": "float32", "shape": ["batch", len(source.description.classes)]},
            ],
        }
        description = Description.from_dict(json.loads(texts[DESCRIPTION]))
        runtime = GraphRuntime(program.module(), description)
        return Exported(details, max_difference=self.max_difference, runtime=runtime, notes=(WARNING,))


def load(directory: Path) -> GraphRuntime:
    """Always raises: a .pt2 executes code when it is opened."""
    raise CheckpointError(
        f"ckpt={directory} holds a torch.export program, which executes code when it is opened; it is written only. "
        "Use the checkpoint that it was exported from, or export it with exporter=onnx"
    )
