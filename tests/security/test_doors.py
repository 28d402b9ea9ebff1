"""A malicious file through every door of the toolkit: refused with a message, and nothing of it runs."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.checkpoint import seal
from finetune.errors import CheckpointError

Command = Callable[..., tuple[int, str]]


@pytest.fixture(params=["sealed", "bare"])
def file(request: pytest.FixtureRequest, tmp_path: Path, hostile: bytes) -> Path:
    """With the hash of our own format, which anyone can compute, and without."""
    path = tmp_path / "hostile.ckpt"
    path.write_bytes(seal(hostile) if request.param == "sealed" else hostile)
    return path


def test_the_bomb_works_when_someone_opens_it_carelessly(file: Path, marker: Path) -> None:
    torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("verb", ["evaluate", "predict", "export", "train"])
def test_hostile_checkpoint_is_refused(verb: str, file: Path, marker: Path, images: Path, command: Command) -> None:
    small = ["backbone=timm", "backbone.name=test_resnet.r160_in1k", "backbone.weights=none", "data.image_size=32"]
    arguments = {
        "evaluate": [f"ckpt={file}", f"data.path={images}"],
        "predict": [f"ckpt={file}", f"input={images}"],
        "export": [f"ckpt={file}", "exporter=safetensors"],
        "train": [f"data.path={images}", f"resume={file}", "logger=csv", "trainer.max_epochs=1", *small],
    }
    code, said = command(verb, *arguments[verb])
    assert code == 2, said
    assert str(file) in said
    assert "Traceback" not in said
    assert not marker.exists()


def test_hostile_weights_file_is_refused(file: Path, marker: Path, images: Path, command: Command) -> None:
    small = ["backbone=timm", "backbone.name=test_resnet.r160_in1k", "data.image_size=32", "logger=csv"]
    code, said = command("train", f"data.path={images}", f"backbone.weights={file}", *small)
    assert code == 2, said
    assert "Traceback" not in said
    assert not marker.exists()


@pytest.mark.parametrize("verb", ["evaluate", "predict", "export"])
def test_pt2_is_never_opened(
    verb: str, hostile: bytes, marker: Path, images: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "model.pt2").write_bytes(hostile)
    rest = {"evaluate": [f"data.path={images}"], "predict": [f"input={images}"], "export": ["exporter=safetensors"]}
    code, said = command(verb, f"ckpt={tmp_path / 'model.pt2'}", *rest[verb])
    assert code == 2, said
    assert "pt2" in said
    assert not marker.exists()


def test_exported_program_is_not_opened_either(hostile: bytes, marker: Path, tmp_path: Path) -> None:
    from finetune.classifier import Classifier
    from finetune.exporter.artefact import write_metadata

    (tmp_path / "artefact").mkdir()
    (tmp_path / "artefact" / "model.pt2").write_bytes(hostile)
    write_metadata(tmp_path / "artefact", {"exporter": "torch_export"})
    with pytest.raises(CheckpointError, match="executes code when it is opened"):
        Classifier.load(tmp_path / "artefact")
    assert not marker.exists()


@pytest.mark.parametrize("entry", ["hyper_parameters", "hparams_name", "finetune", "callbacks"])
def test_object_in_any_entry_is_refused(
    entry: str, card: Any, marker: Path, checkpoint_with: Callable[..., Path]
) -> None:
    from finetune.classifier import Classifier

    from .conftest import Bomb

    path = checkpoint_with(card, **{entry: {"classes": Bomb(marker)}})
    with pytest.raises(CheckpointError, match=r"no checkpoint of tensors and plain data .it asks for \w+.system"):
        Classifier.load(path)
    assert not marker.exists()


def test_hyper_parameters_that_name_a_class_are_not_followed(
    card: Any, marker: Path, checkpoint_with: Callable[..., Path]
) -> None:
    """Lightning's load_from_checkpoint imports what these entries name; nothing here reads them."""
    from finetune.classifier import Classifier

    named = {"_class_path": "os.system", "_instantiator": "os.system", "command": f"touch {marker}"}
    path = checkpoint_with(card, hyper_parameters=named, hparams_name="kwargs", hparams_type="os.system")
    assert Classifier.load(path).classes == ("cat", "dog")
    assert not marker.exists()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """tmp_path over http."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_hostile_checkpoint_from_an_address_is_refused(file: Path, marker: Path, address: str) -> None:
    from finetune.classifier import Classifier
    from finetune.exporting import read_model

    for opened in (partial(Classifier.load, f"{address}/{file.name}"), partial(read_model, f"{address}/{file.name}")):
        with pytest.raises(CheckpointError):
            opened()
    assert not marker.exists()


def test_sound_checkpoint_from_an_address_is_hashed_and_opened(
    card: Any, address: str, tmp_path: Path, checkpoint_with: Callable[..., Path]
) -> None:
    import hashlib

    from finetune.download import local_copy
    from finetune.exporting import read_model

    content = checkpoint_with(card).read_bytes()
    (tmp_path / "served.ckpt").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert read_model(f"{address}/served.ckpt").classes == ("cat", "dog")
    assert local_copy(f"{address}/served.ckpt#sha256={digest}").parent.name == digest
    with pytest.raises(CheckpointError, match="it was not kept"):
        local_copy(f"{address}/served.ckpt#sha256={'0' * 64}")
    with pytest.raises(CheckpointError, match="more than 1,000 bytes"):
        local_copy(f"{address}/served.ckpt", max_bytes=1000)
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        local_copy(f"{address}/missing.ckpt")


@pytest.mark.parametrize("ckpt", ["ftp://host/best.ckpt", "file:///etc/passwd.ckpt", "s3://bucket/best.ckpt"])
def test_other_kinds_of_address_are_not_followed(ckpt: str) -> None:
    from finetune.download import local_copy

    with pytest.raises(CheckpointError, match="expected a path, http:// or https://"):
        local_copy(ckpt)
