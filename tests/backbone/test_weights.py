"""Weights from files, caches and hubs: loaded to the last bit, or refused with the reason and the way on."""

from __future__ import annotations

import http.server
import pickle
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from finetune.backbone import hub
from finetune.backbone.timm_model import create_backbone
from finetune.backbone.weights import WAYS_ON
from finetune.errors import WeightsError


@pytest.fixture(scope="module")
def donor() -> torch.nn.Module:
    """A whole network of one's own, with the classifier of another task."""
    torch.manual_seed(3)
    return timm.create_model("test_resnet", num_classes=7)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {f"module.{k}": v for k, v in state.items()}])
def test_a_file_gives_its_backbone_bit_for_bit_and_leaves_its_classifier(tmp_path, donor, suffix, wrap):
    path = tmp_path / f"mine{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(wrap(donor.state_dict()), path)
    built = create_backbone(64, name="test_resnet", weights=str(path))
    assert built.weights == str(path)
    for name, value in built.module.state_dict().items():
        assert torch.equal(value, donor.state_dict()[name]), name


def test_a_file_with_backbone_and_head_side_by_side_gives_its_backbone(tmp_path, donor):
    path = tmp_path / "both.safetensors"
    both = {f"backbone.{name}": value for name, value in donor.state_dict().items() if not name.startswith("fc.")}
    safetensors.torch.save_file({**both, "head.linear.weight": torch.zeros(2, 8)}, path)
    built = create_backbone(64, name="test_resnet", weights=str(path))
    assert torch.equal(built.module.conv1[0].weight, donor.conv1[0].weight)


def test_a_vision_transformer_s_positions_are_resized_to_another_image_size(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_224", depth=1).state_dict(), tmp_path / "vit.pth")
    state = torch.load(tmp_path / "vit.pth", weights_only=True)
    full = timm.create_model("vit_tiny_patch16_224").state_dict()
    torch.save({**full, **{key: state[key] for key in ("pos_embed", "cls_token")}}, tmp_path / "vit.pth")
    built = create_backbone(64, name="vit_tiny_patch16_224", weights=str(tmp_path / "vit.pth"))
    assert built.module.pos_embed.shape[1] == 17
    assert torch.equal(built.module.cls_token, state["cls_token"])


def test_weights_of_another_architecture_are_refused_with_counts_and_names(tmp_path, donor):
    torch.save(donor.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(WeightsError) as error:
        create_backbone(64, name="resnet18", weights=str(tmp_path / "mine.pth"))
    wanted, given = timm.create_model("resnet18", num_classes=0).state_dict(), donor.state_dict()
    missing = sum(name not in given and not name.endswith("num_batches_tracked") for name in wanted)
    reshaped = sum(name in given and given[name].shape != value.shape for name, value in wanted.items())
    unknown = sum(name not in wanted and not name.startswith("fc.") for name in given)
    message = str(error.value)
    assert message.startswith(f"backbone.weights={tmp_path}/mine.pth does not fit backbone.name=resnet18: of its ")
    assert f"of its {len(wanted)} tensors {missing} are missing from the file" in message
    assert f"{reshaped} have another shape, and {unknown} of the file are unknown to it" in message
    assert "conv1.weight is missing" in message


def test_files_that_hold_no_weights_are_named_as_such(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    expected = {
        "absent.pth": "is not there; pretrained, none, hf-hub:ID or a file is expected",
        "folder": "is a folder; a .safetensors, .pth or .ckpt file is expected",
        "text.pth": "is no weights file: torch cannot read its 11 bytes as plain tensors",
        "text.safetensors": "is no weights file: safetensors cannot read its 11 bytes as plain tensors",
        "empty.pth": "holds no tensors; a state dict saved by torch.save or safetensors is expected",
    }
    for name, words in expected.items():
        with pytest.raises(WeightsError) as error:
            create_backbone(64, name="test_resnet", weights=str(tmp_path / name))
        assert str(error.value).startswith(f"backbone.weights={tmp_path}/{name} {words}")


class Marker:
    """A pickle that creates a file when it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_opening_a_weights_file_runs_no_code(tmp_path):
    for number, name in enumerate(("evil.pth", "evil.bin", "evil.pt")):
        marker = tmp_path / f"marker{number}"
        (tmp_path / name).write_bytes(pickle.dumps({"conv1.weight": Marker(marker)}))
        with pytest.raises(WeightsError, match="is no weights file"):
            create_backbone(64, name="test_resnet", weights=str(tmp_path / name))
        assert not marker.exists()


def fill_cache(root: Path, repository: str, filename: str, content: Path) -> None:
    """Lay out one file as the hub's client does."""
    folder = root / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / filename).write_bytes(content.read_bytes())


def test_a_populated_cache_is_enough_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(5)
    donor = timm.create_model("test_resnet")
    safetensors.torch.save_file(donor.state_dict(), tmp_path / "model.safetensors")
    fill_cache(tmp_path / "cache", "timm/test_resnet.r160_in1k", "model.safetensors", tmp_path / "model.safetensors")
    built = create_backbone(64, name="test_resnet", weights="pretrained")
    assert built.weights == "test_resnet.r160_in1k (local cache)"
    for name, value in built.module.state_dict().items():
        assert torch.equal(value, donor.state_dict()[name]), name


def test_without_a_network_the_three_ways_on_are_named():
    for weights in ("pretrained", "hf-hub:timm/test_resnet.r160_in1k"):
        with pytest.raises(WeightsError) as error:
            create_backbone(64, name="test_resnet", weights=weights)
        assert str(error.value).endswith(f"HF_HUB_OFFLINE forbids asking the hub. {WAYS_ON}")
    for way in ("backbone.weights=FILE", "a populated cache", "backbone.weights=none"):
        assert way in WAYS_ON


def test_a_hub_that_accepts_and_never_answers_costs_seconds_only(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.5)
    release = threading.Event()

    class Silent(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            release.wait(20)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        start = time.monotonic()
        with pytest.raises(WeightsError, match=r"127\.0\.0\.1 (did not answer within|cannot be reached)"):
            create_backbone(64, name="test_resnet", weights="pretrained")
        took_s = time.monotonic() - start
        release.set()
        server.shutdown()
    assert took_s < 10
    assert hub.TIMEOUT_S <= 15


def test_a_network_that_nobody_pretrained_says_so():
    with pytest.raises(WeightsError, match=r"plain18 has no pretrained weights; say backbone\.weights=none"):
        create_backbone(64, name="plain18", weights="pretrained")
