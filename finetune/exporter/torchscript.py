"""TorchScript: a ``model.pt`` for libtorch and mobile programs that have not moved on.

When to use: when C++ or an old server demands it; PyTorch deprecates it in favour of torch.export, so prefer
``exporter=onnx``. Cost: one traced forward pass. A TorchScript file is a program: its operators can write files
(``torch.save``), so ``load`` first reads its source, as text, and refuses what goes beyond tensors.

Source: https://docs.pytorch.org/docs/stable/jit.html (deprecated there since 2.5)
"""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from finetune.errors import CheckpointError, ExportError
from finetune.exporter.artefact import Description, Exportable, Exported, read_metadata
from finetune.exporter.fold import fold_batchnorm as fold
from finetune.exporter.graph_runtime import GraphRuntime
from finetune.exporter.tracing import example, quiet

MODEL = "model.pt"
DESCRIPTION = "finetune.json"
_FORBIDDEN = {"save", "from_file", "load", "classes", "warn", "print", "_print"}
"""Operators that reach outside of tensors; a name of custom C++ classes; anything printed on the opener's terminal."""
_NAMESPACES = {"prim", "aten"}


class TorchscriptExporter:
    """Writes ``model.pt``, traced and frozen (BatchNorm folded, constants inlined)."""

    def __init__(self, *, max_difference: float = 1e-4) -> None:
        self.max_difference = max_difference

    def __call__(self, source: Exportable, directory: Path) -> Exported:
        """Write ``directory/model.pt``; raises ``ExportError`` when torch no longer offers it or cannot trace."""
        if not all(hasattr(torch.jit, name) for name in ("trace", "freeze", "save", "load")):
            raise ExportError(
                f"exporter=torchscript: PyTorch {torch.__version__} no longer has TorchScript; use exporter=onnx or "
                "exporter=torch_export"
            )
        images_BCHW = example(source.description)
        result = fold(source.network, images_BCHW)
        texts = {DESCRIPTION: json.dumps(source.description.to_dict(), ensure_ascii=False)}
        with quiet():
            try:
                traced = torch.jit.freeze(torch.jit.trace(result.network.eval(), images_BCHW))
            except Exception as error:  # torch raises many kinds; each means that the network cannot be traced
                reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                raise ExportError(f"exporter=torchscript: torch cannot trace this network: {reason}") from error
            torch.jit.save(traced, directory / MODEL, _extra_files=texts)
        height, width = source.description.preprocessing.size
        details = {
            "batchnorm_folded": f"{result.folded} of {result.total}",
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
        return Exported(details, max_difference=self.max_difference)


def load(directory: Path) -> GraphRuntime:
    """Open a directory that this exporter wrote, after its hashes and its source were checked."""
    read_metadata(directory)
    path = directory / MODEL
    _refuse_more_than_tensors(path)
    texts = {DESCRIPTION: ""}
    with quiet():
        try:
            module = torch.jit.load(path, map_location="cpu", _extra_files=texts)
        except RuntimeError as error:
            raise CheckpointError(f"{path} is not a TorchScript file that PyTorch opens ({error})") from error
    text: str | bytes = texts[DESCRIPTION]
    return GraphRuntime(module, Description.from_dict(json.loads(text or "{}")))


def _refuse_more_than_tensors(path: Path) -> None:
    """Raise ``CheckpointError`` unless every call in the archive's source is an ordinary operator on tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            sources = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(f"{path} is not a TorchScript file ({error})") from error
    for name, source in sources.items():
        try:
            calls = list(_dotted_names(ast.parse(source)))
        except (SyntaxError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: {name} cannot be read as TorchScript ({error}); not opened") from error
        for call in calls:
            if _FORBIDDEN & set(call) or (call[0] == "ops" and call[1:2] and call[1] not in _NAMESPACES):
                raise CheckpointError(
                    f"{path}: {name} calls {'.'.join(call)}, which is no operator on tensors; not opened"
                )


def _dotted_names(tree: ast.AST) -> Iterator[list[str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts = [node.attr]
            value: ast.expr = node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name):
                parts.append(value.id)
            yield parts[::-1]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield [node.func.id]
