"""What ``ckpt=`` may name, and what it is told when it names something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.errors import CheckpointError, ConfigError
from finetune.opening import open_runtime
from finetune.torch_runtime import resolve


def test_a_checkpoint_carries_its_classes_and_its_temperature(ckpt: Path) -> None:
    description = open_runtime(ckpt, device="cpu").description
    assert description.classes == ("amber", "blue", "coral")
    assert description.temperature == 1.5


def test_a_run_directory_is_answered_with_the_checkpoint_in_it(ckpt: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"is a directory; say ckpt={ckpt}"):
        open_runtime(ckpt.parent.parent)


def test_a_program_that_would_be_executed_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"model.pt2: opening a .pt2 file can execute code"):
        open_runtime(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"exporter": "nonesuch"}, "exporter='nonesuch', which this version does not have"),
        ({"exporter": "../classifier"}, "which this version does not have"),
        ({"exporter": "fold"}, "whose files are not opened here"),
        ({}, "cannot be read"),
    ],
)
def test_metadata_that_names_no_exporter_of_ours_is_refused(tmp_path: Path, metadata: object, message: str) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(CheckpointError, match=message):
        open_runtime(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=message):
        open_runtime(tmp_path / "model.onnx")


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"device=cuda:7 is not available here"):
        resolve("cuda:7")
    with pytest.raises(ConfigError, match=r"device=tpu"):
        resolve("tpu")
