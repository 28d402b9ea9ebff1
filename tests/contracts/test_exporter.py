"""What every exporter keeps, found by its YAML: complete metadata, a model card, parity, and being opened again."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.classifier import Classifier
from finetune.config import CONF_DIR
from finetune.errors import CheckpointError, ExportError

_SPEC = importlib.util.spec_from_file_location(
    "exporter_runs", Path(__file__).parent.parent / "exporter" / "conftest.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
_RUNS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_RUNS)
run_of, export_of = _RUNS.run_of, _RUNS.export_of

NAMES = sorted(path.stem for path in (CONF_DIR / "exporter").glob("*.yaml"))


@pytest.mark.parametrize("exporter", NAMES)
@pytest.mark.parametrize(
    ("ending", "labels"), [("linear", "multiclass"), ("mlp", "multilabel"), ("cosine", "multiclass")]
)
def test_artefact_behaves_as_the_model_and_says_what_it_is(
    exporter: str, ending: str, labels: str, run_of: Callable[..., Path], export_of: Callable[..., Any]
) -> None:
    ckpt = run_of(head=ending, task=labels)
    try:
        artefact = export_of(ckpt, f"exporter={exporter}")
    except ExportError as error:
        if "use exporter=" not in str(error):  # a refusal names what works instead
            raise
        return
    metadata = json.loads((artefact.directory / "metadata.json").read_text())
    assert metadata["exporter"] == exporter
    assert metadata["task"] == labels
    assert metadata["parity"]["max_difference"] <= 1e-4
    assert metadata["parity"]["changed"] == 0
    assert metadata["files"].keys() == {path.name for path in artefact.directory.iterdir()} - {"metadata.json"}
    assert "amber, blue, coral" in (artefact.directory / "README.md").read_text()
    if exporter == "torch_export":
        with pytest.raises(CheckpointError, match="exporter=onnx"):
            Classifier.load(artefact.directory)
        return
    opened = Classifier.load(artefact.directory)
    model = Classifier.load(ckpt)
    assert opened.description == model.description
    images_BHWC = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(opened.runtime.logits(images_BHWC), model.runtime.logits(images_BHWC), atol=1e-3)
