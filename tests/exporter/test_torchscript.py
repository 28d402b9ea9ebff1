"""TorchScript files are programs; only those that compute on tensors are opened."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.classifier import Classifier
from finetune.errors import CheckpointError, ExportError
from finetune.exporter.artefact import METADATA, write_metadata
from finetune.exporter.torchscript import TorchscriptExporter


@pytest.fixture
def artefact(run_of: Callable[..., Path], export_of: Callable[..., Any]) -> Any:
    return export_of(run_of(), "exporter=torchscript")


def test_program_that_writes_a_file_is_not_opened(artefact: Any, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        program = f"def forward(self, x: Tensor) -> Tensor:\n    torch.save(x, {str(marker)!r})\n    return x\n"
        module = torch.jit.ScriptModule()
        module.define(program)
        torch.jit.save(module, artefact.directory / "model.pt")
    fields = {key: value for key, value in artefact.metadata.items() if key not in ("files", "sha256", "format")}
    (artefact.directory / METADATA).unlink()
    write_metadata(artefact.directory, fields)
    with pytest.raises(CheckpointError, match=r"calls torch\.save, which is no operator on tensors"):
        Classifier.load(artefact.directory)
    assert not marker.exists()


def test_pytorch_without_torchscript_is_named(
    run_of: Callable[..., Path], export_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.jit, "trace")
    with pytest.raises(ExportError, match="no longer has TorchScript; use exporter=onnx"):
        export_of(run_of(), "exporter=torchscript")


def test_exporter_has_no_positional_configuration() -> None:
    with pytest.raises(TypeError):
        TorchscriptExporter(1e-4)  # type: ignore[misc]
