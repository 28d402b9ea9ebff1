"""metadata.json: complete, and any changed byte is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.classifier import Classifier
from finetune.errors import CheckpointError, ConfigError
from finetune.exporter.artefact import Description, read_metadata, write_metadata
from finetune.preprocessing import Preprocessing

DESCRIPTION = Description("multiclass", ("b", "a", "ä|\n"), Preprocessing(size=(32, 48)), 1.25, None)


def test_description_survives_every_container() -> None:
    assert Description.from_dict(json.loads(json.dumps(DESCRIPTION.to_dict()))) == DESCRIPTION
    assert Description.from_text(DESCRIPTION.to_text()) == DESCRIPTION


@pytest.mark.parametrize(
    ("key", "value"),
    [("task", "regression"), ("classes", []), ("classes", ["a", "a"]), ("temperature", 0), ("temperature", "nan")],
)
def test_absurd_description_is_refused(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError):
        Description.from_dict({**DESCRIPTION.to_dict(), key: value})


@pytest.fixture
def artefact(run_of: Callable[..., Path], export_of: Callable[..., Any]) -> Any:
    return export_of(run_of(), "exporter=safetensors")


def test_metadata_says_everything_a_client_needs(artefact: Any) -> None:
    metadata = json.loads((artefact.directory / "metadata.json").read_text())
    assert metadata["classes"] == ["amber", "blue", "coral"]
    assert metadata["preprocessing"]["size"] == [64, 64]
    assert metadata["temperature"] == 1.5
    assert metadata["backbone"]["name"] == "test_resnet.r160_in1k"
    assert metadata["head"]["_target_"] == "finetune.head.linear.LinearHead"
    assert metadata["input"]["name"]
    assert metadata["outputs"][0]["name"] == "logits"
    assert metadata["metrics"] == {"val": {"accuracy": 0.9}}
    assert {"torch", "timm"} <= set(metadata["versions"]["exported"])
    assert metadata["parity"]["max_difference"] < 1e-4
    assert set(metadata["files"]) == {"model.safetensors", "README.md"}


def test_no_path_of_the_exporting_machine_is_written(artefact: Any, run_of: Callable[..., Path]) -> None:
    root = str(run_of().parent.parent).encode()
    for path in artefact.directory.iterdir():
        assert root not in path.read_bytes(), path.name


def test_hundred_flipped_bytes_are_all_refused(artefact: Any) -> None:
    rng = np.random.default_rng(0)
    names = ["model.safetensors", "metadata.json"]
    for number in range(100):
        path = artefact.directory / names[number % 2]
        content = path.read_bytes()
        position = int(rng.integers(len(content)))
        changed = bytearray(content)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        with pytest.raises(CheckpointError):
            Classifier.load(artefact.directory)
        path.write_bytes(content)
    assert Classifier.load(artefact.directory).classes == ("amber", "blue", "coral")


def test_model_card_may_be_edited(artefact: Any) -> None:
    (artefact.directory / "README.md").write_text("mine")
    assert read_metadata(artefact.directory)["exporter"] == "safetensors"


def test_missing_file_is_named(artefact: Any) -> None:
    (artefact.directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        Classifier.load(artefact.directory)


def test_file_outside_of_the_directory_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    inside = tmp_path / "artefact"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    write_metadata(inside, {"exporter": "onnx"})
    with pytest.raises(CheckpointError, match="outside of the directory"):
        read_metadata(inside)


def test_existing_artefact_is_replaced_only_on_request(
    run_of: Callable[..., Path], export_of: Callable[..., Any]
) -> None:
    first = export_of(run_of(), "exporter=safetensors")
    with pytest.raises(ConfigError, match="overwrite=true"):
        export_of(run_of(), "exporter=safetensors", f"output={first.directory}")
    again = export_of(run_of(), "exporter=safetensors", f"output={first.directory}", "overwrite=true")
    assert again.directory == first.directory
    assert read_metadata(again.directory)["exporter"] == "safetensors"


def test_directory_that_is_no_artefact_is_never_replaced(
    run_of: Callable[..., Path], export_of: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_text("x")
    with pytest.raises(ConfigError, match="is no artefact"):
        export_of(run_of(), "exporter=safetensors", f"output={tmp_path / 'holiday'}", "overwrite=true")
    assert (tmp_path / "holiday" / "photo.jpg").exists()
