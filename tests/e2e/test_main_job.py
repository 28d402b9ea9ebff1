"""The main job from outside: any family trains and comes back, the checkpoint is plain, W&B has everything."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from finetune import build, training
from finetune.backbone.timm_model import create_backbone
from finetune.checkpoint import read_checkpoint
from finetune.config import CONF_DIR
from finetune.logger.wandb_history import read_records
from finetune.run_directory import RunDirectory
from finetune.stages import divide

FAMILIES = ("resnet18", "test_efficientnet", "test_convnext", "test_vit", "mobilenetv3_small_050", "regnetx_002")
TINY = (
    "backbone.weights=none", "data.image_size=32", "data.batch_size=6", "data.num_workers=0", "trainer=cpu",
    "trainer.precision=32-true", "report=none", "cache=none",
)  # fmt: skip


def train(directory: Path, *overrides: str) -> dict[str, Any]:
    """``python -m finetune.train`` in this process."""
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[*TINY, *overrides])
    GlobalHydra.instance().clear()
    directory.mkdir(parents=True, exist_ok=True)
    return training.train(cfg, RunDirectory(directory), {"freeze": "auto", "head": "linear"})


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_a_step_and_comes_back_with_equal_logits(name, tmp_path, image_folder, monkeypatch):
    data = image_folder(classes=("train/cat", "train/dog", "val/cat", "val/dog"), n=3)
    trained: list[torch.nn.Module] = []
    finish = training.finish.finish

    def remember(parts, *rest):
        trained.append(parts.model.network)
        return finish(parts, *rest)

    monkeypatch.setattr(training.finish, "finish", remember)
    train(tmp_path / "run", f"data.path={data}", f"backbone.name={name}", "trainer.max_epochs=1", "logger=csv")
    checkpoints = tmp_path / "run" / "checkpoints"
    restored = build.network_from_checkpoint(read_checkpoint(checkpoints / "best.ckpt"))
    images_BCHW = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(restored(images_BCHW), trained[0].eval()(images_BCHW))
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)
    assert last["global_step"] == 1
    optimizer = last["optimizer_states"][0]
    assert sum(len(group["params"]) for group in optimizer["param_groups"]) == len(list(restored.parameters()))
    # a branch that starts at zero hands no gradient on in the first step, but its own scale gets one: every stage moves
    moved = {
        group["name"].removesuffix(".no_decay")
        for group in optimizer["param_groups"]
        for index in group["params"]
        if optimizer["state"][index]["exp_avg"].any()
    }
    assert moved == {stage.name for stage in divide(restored)}


def test_the_backbone_of_a_checkpoint_starts_the_next_run_with_its_own_preprocessing(run, tmp_path, image_folder):
    """``backbone.weights=RUN/checkpoints/best.ckpt`` on another dataset: the backbone's part, and no head."""
    checkpoint = read_checkpoint(run.directory / "checkpoints" / "best.ckpt")
    built = create_backbone(32, name="test_resnet", weights=str(run.directory / "checkpoints" / "best.ckpt"))
    for name, value in built.module.state_dict().items():
        assert torch.equal(value, checkpoint.state_dict[f"backbone.{name}"]), name
    assert built.preprocessing.mean == checkpoint.preprocessing.mean
    data = image_folder(classes=("train/emu", "train/fox", "train/gnu", "val/emu", "val/fox", "val/gnu"), n=3)
    typed = (f"data.path={data}", "backbone.name=test_resnet", "trainer.max_epochs=1", "logger=csv")
    weights = f"backbone.weights={run.directory}/checkpoints/best.ckpt"
    result = train(tmp_path / "second", *typed, weights, "freeze=head_only", "freeze.solve_head=false")
    second = read_checkpoint(tmp_path / "second" / "checkpoints" / "best.ckpt")
    assert result["classes"] == ["emu", "fox", "gnu"]
    kept = [name for name in second.state_dict if name.startswith("backbone.")]
    assert all(torch.equal(second.state_dict[name], checkpoint.state_dict[name]) for name in kept)


class Run(NamedTuple):
    directory: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three epochs with both trackers, W&B offline."""
    from tests.conftest import write_image_folder

    folder = tmp_path_factory.mktemp("main_job")
    data = write_image_folder(folder / "data", classes=("train/cat", "train/dog", "test/cat", "test/dog"), n=6)
    typed = (f"data.path={data}", "backbone.name=test_resnet", "trainer.max_epochs=3", "head.dropout=0.25")
    return Run(folder / "run", train(folder / "run", *typed))


def plain(value: Any, where: str = "") -> Iterator[str]:
    """Every place in a checkpoint that is neither a tensor nor plain data."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if type(key) not in (str, int):
                yield f"{where}: a key of type {type(key)}"
            yield from plain(entry, f"{where}.{key}")
    elif type(value) in (list, tuple):
        for number, entry in enumerate(value):
            yield from plain(entry, f"{where}[{number}]")
    elif type(value) not in (str, int, float, bool, type(None), torch.Tensor):
        yield f"{where}: {type(value)}"


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_checkpoint_opens_with_weights_only_and_holds_tensors_and_plain_data(run, name):
    payload = torch.load(run.directory / "checkpoints" / name, weights_only=True)
    assert {"state_dict", "finetune"} <= payload.keys()
    assert payload["finetune"]["classes"] == ["cat", "dog"]
    assert list(plain(payload)) == []


def test_the_offline_w_b_run_holds_configuration_every_epoch_and_the_summary(run):
    (log,) = run.directory.glob("wandb/offline-run-*/run-*.wandb")
    records = list(read_records(log))

    def entries(record: Any) -> dict[str, Any]:
        return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record}

    config = {
        key: value
        for r in records
        if r.WhichOneof("record_type") == "config"
        for key, value in entries(r.config.update).items()
    }
    assert config["head.dropout"] == 0.25
    assert config["trainer.max_epochs"] == 3
    assert config["backbone.name"] == "test_resnet"
    history = [entries(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]
    with (run.directory / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for column in ("train/loss", "val/loss", "val/accuracy", "val/balanced_accuracy", "val/macro_f1"):
        logged = [row[column] for row in history if column in row]
        assert logged == pytest.approx([float(row[column]) for row in rows], rel=1e-6), column
    summary = {
        key: value
        for r in records
        if r.WhichOneof("record_type") == "summary"
        for key, value in entries(r.summary.update).items()
    }
    assert summary["status"] == "completed"
    assert summary["test/accuracy"] == run.result["test"]["accuracy"]
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_recipe_on_packaged_weights_beats_a_probe_of_random_features_by_a_quarter(clipart, tmp_path):
    """Real transfer: the public command, real ImageNet weights, real pictures; 88 of them in test."""
    command = [
        sys.executable, "-m", "finetune.train", f"data.path={clipart}", "backbone=efficientnet_lite0",
        "data.image_size=160", "logger=csv", "report=none", f"cache.dir={tmp_path / 'cache'}",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    reached = json.loads((tmp_path / "run" / "result.json").read_text())["test"]["accuracy"]
    assert reached >= accuracy_of_random_features(clipart) + 0.25


def accuracy_of_random_features(clipart: Path) -> float:
    """Test accuracy of a logistic regression on what the same network, untrained, makes of the pictures."""
    import numpy as np
    import timm
    from PIL import Image
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()

    def features(split: str) -> tuple[Any, list[str]]:
        paths = sorted(path for path in (clipart / split).rglob("*") if path.is_file())
        pictures = [np.asarray(Image.open(path).convert("RGB").resize((160, 160))) for path in paths]
        images_BCHW = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            return torch.cat([network(chunk) for chunk in images_BCHW.split(32)]).numpy(), [
                p.parent.name for p in paths
            ]

    probe: Callable[..., Any] = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(probe.fit(*features("train")).score(*features("test")))
