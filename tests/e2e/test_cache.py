"""Whole runs on stored features beside runs that compute all of it live: the same training, a fraction of the work."""

from __future__ import annotations

import copy
import logging
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from finetune.build import network_from_checkpoint
from finetune.cache import trunk
from finetune.checkpoint import read_checkpoint
from finetune.data import dataset
from finetune.data.image import read_image
from finetune.model import ImageClassifier
from tests.conftest import write_image_folder
from tests.engine.conftest import Moment, assert_same_run, interrupted_run, train

PLAIN = ("transform=none", "seed=3")
BATCH_NORM = ("frozen", "live")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("data") / "images", n=8, size=(40, 40))


@pytest.fixture
def reuse(caplog: pytest.LogCaptureFixture) -> Any:
    """What the runs of a test said about features: a list of (from cache, all)."""
    caplog.set_level(logging.INFO, logger="finetune")

    def said() -> list[tuple[int, int]]:
        found = [re.search(r"(\d+) of (\d+) from cache", record.getMessage()) for record in caplog.records]
        return [(int(match[1]), int(match[2])) for match in found if match]

    return said


def weights(directory: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return dict(torch.load(directory / "checkpoints" / name, weights_only=True)["state_dict"])


def unfolded(backbone: nn.Module, preprocessing: object) -> nn.Module:
    """The trunk as the plain network: same operations in the same order."""
    return copy.deepcopy(backbone).eval().requires_grad_(requires_grad=False)


def test_a_head_trained_on_stored_features_is_bitwise_the_one_trained_live(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "_folded", unfolded)
    overrides = (f"data.path={images}", "freeze=head_only", *PLAIN)
    train(tmp_path / "stored", *overrides)
    train(tmp_path / "live", *overrides, "cache=none")
    stored, live = weights(tmp_path / "stored"), weights(tmp_path / "live")
    assert all(torch.equal(stored[name], live[name]) for name in live)
    figures = [
        pd.read_csv(tmp_path / run / "metrics.csv").drop(columns="train/images_per_s") for run in ("stored", "live")
    ]
    pd.testing.assert_frame_equal(*figures, check_exact=True)


def test_folding_batch_normalisation_moves_the_head_in_the_last_bits_only(images: Path, tmp_path: Path) -> None:
    overrides = (f"data.path={images}", "freeze=head_only", *PLAIN)
    train(tmp_path / "stored", *overrides)
    train(tmp_path / "live", *overrides, "cache=none")
    stored, live = weights(tmp_path / "stored"), weights(tmp_path / "live")
    for name, value in live.items():
        torch.testing.assert_close(stored[name], value, rtol=1e-4, atol=1e-6)


def test_in_bfloat16_stored_and_live_training_agree_on_all_but_two_in_a_hundred_predictions(tmp_path: Path) -> None:
    many = write_image_folder(tmp_path / "images", n=40, size=(36, 36), seed=5)
    overrides = (f"data.path={many}", "freeze=head_only", "trainer.precision=bf16-mixed", *PLAIN)
    predicted = []
    for name, cache in (("stored", "features"), ("live", "none")):
        train(tmp_path / name, *overrides, f"cache={cache}", "optimizer.lr=0.02", "data.batch_size=16")
        predicted.append(predictions(tmp_path / name, many))
    assert len(predicted[0]) == 120
    assert (predicted[0] != predicted[1]).mean() <= 0.02
    assert len(np.unique(predicted[1])) == 3, "a constant prediction would prove nothing"


def test_a_probe_in_bfloat16_reads_each_image_once_and_is_judged_in_float32(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()

    def counted(path: Path, **options: Any) -> np.ndarray:
        read[str(path)] += 1
        return read_image(path, **options)

    monkeypatch.setattr(dataset, "read_image", counted)
    found = train(tmp_path / "run", f"data.path={images}", "freeze=head_only", "trainer.precision=bf16-mixed", *PLAIN)
    assert len(read) == 24
    assert read.total() == 24 + 4, "four more for the check of the trunk"

    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    rows = pd.read_csv(tmp_path / "run" / "split.csv").query("split == 'val'")
    pixels = np.stack([checkpoint.preprocessing.resize_crop(read_image(images / path)) for path in rows["path"]])
    targets_N = torch.tensor([checkpoint.classes.index(label) for label in rows["label"]])
    with torch.no_grad():
        images_BCHW = checkpoint.preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        loss = nn.functional.cross_entropy(network_from_checkpoint(checkpoint)(images_BCHW), targets_N)
    assert found["val"]["loss"] == pytest.approx(float(loss), abs=1e-5)


def predictions(directory: Path, images: Path) -> np.ndarray:
    checkpoint = read_checkpoint(directory / "checkpoints" / "best.ckpt")
    network = network_from_checkpoint(checkpoint)
    files = sorted(images.rglob("*.png"))
    pixels = np.stack([checkpoint.preprocessing.resize_crop(read_image(file)) for file in files])
    with torch.no_grad():
        images_BCHW = checkpoint.preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        return network(images_BCHW).argmax(dim=1).numpy()


def schedule(batch_norm: str) -> str:
    return (
        "freeze.phases=[{train:[head],epochs:1},"
        f"{{train:[head,'@-1'],epochs:1,batch_norm:{batch_norm}}},"
        f"{{train:[head,'@-1','@-2'],batch_norm:{batch_norm}}}]"
    )


@pytest.mark.parametrize("batch_norm", BATCH_NORM)
def test_training_from_a_stored_boundary_equals_live_training(
    batch_norm: str, images: Path, tmp_path: Path, reuse: Any
) -> None:
    overrides = (f"data.path={images}", "freeze=gradual", schedule(batch_norm), *PLAIN, "optimizer.lr=0.001")
    train(tmp_path / "stored", *overrides)
    assert reuse()[:6] == [(0, 18), (0, 6)] * 3, "three boundaries, train and val each"
    stored_said = len(reuse())
    train(tmp_path / "live", *overrides, "cache=none")
    assert len(reuse()) == stored_said
    stored, live = weights(tmp_path / "stored"), weights(tmp_path / "live")
    for name, value in live.items():
        torch.testing.assert_close(stored[name], value, rtol=5e-3, atol=2e-4, msg=name)
    statistics = [name for name in live if "running_mean" in name and "layer4" in name]
    assert all((stored[name] == 0).all() == (batch_norm == "frozen") for name in statistics)


def test_a_surgical_run_trains_its_stage_from_the_stored_activation_below_it(
    images: Path, tmp_path: Path, reuse: Any
) -> None:
    overrides = (f"data.path={images}", "freeze=surgical", "freeze.stage=@-2", *PLAIN, "optimizer.lr=0.001")
    train(tmp_path / "stored", *overrides)
    assert reuse()[:4] == [(0, 18), (0, 6)] * 2
    train(tmp_path / "live", *overrides, "cache=none")
    stored, live = weights(tmp_path / "stored"), weights(tmp_path / "live")
    for name, value in live.items():
        torch.testing.assert_close(stored[name], value, rtol=5e-3, atol=2e-4, msg=name)


def test_runs_share_features_and_added_images_cost_only_themselves(images: Path, tmp_path: Path, reuse: Any) -> None:
    folder = shutil.copytree(images, tmp_path / "images")
    overrides = (f"data.path={folder}", "freeze=head_only", *PLAIN)
    train(tmp_path / "first", *overrides)
    train(tmp_path / "second", *overrides, "head=mlp", "optimizer.lr=0.01")
    more = write_image_folder(tmp_path / "more", n=4, size=(40, 40), seed=9)
    for file in more.rglob("*.png"):
        shutil.copyfile(file, folder / file.parent.name / f"more-{file.name}")
    train(tmp_path / "third", *overrides)
    first, second, third = reuse()[:2], reuse()[2:4], reuse()[4:6]
    assert [there for there, _ in first] == [0, 0]
    assert all(there == count for there, count in second)
    assert sum(count for _, count in third) == 36
    assert sum(there for there, _ in third) == 24


def test_a_run_interrupted_inside_a_stored_phase_goes_on_bit_for_bit(images: Path, tmp_path: Path) -> None:
    overrides = (f"data.path={images}", "freeze=lp_ft", "freeze.phases.0.epochs=2", f"cache.dir={tmp_path / 'store'}")
    train(tmp_path / "whole", *overrides)
    interrupted_run(tmp_path / "resumed", Moment(1, 2), *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")


def test_resuming_is_bitwise_from_a_stored_boundary_and_with_augmented_views(images: Path, tmp_path: Path) -> None:
    overrides = (f"data.path={images}", "freeze=surgical", "cache.views=2", "transform=light")
    train(tmp_path / "whole", *overrides)
    interrupted_run(tmp_path / "resumed", Moment(2, 3), *overrides)
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")


def test_a_store_that_cannot_be_written_is_one_message_and_the_same_training(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    overrides = (f"data.path={images}", "freeze=head_only", *PLAIN)
    train(tmp_path / "stored", *overrides, f"cache.dir={tmp_path / 'store'}")
    caplog.clear()
    train(tmp_path / "memory", *overrides, f"cache.dir={tmp_path / 'file' / 'store'}")
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([text for text in said if "cannot be stored" in text]) == 1
    stored, memory = weights(tmp_path / "stored"), weights(tmp_path / "memory")
    assert all(torch.equal(stored[name], memory[name]) for name in memory)


def test_the_epochs_take_the_stored_views_in_turn(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, torch.Tensor] = {}
    plain = ImageClassifier.training_step

    def remember(self: Any, batch: Any, batch_idx: int) -> Any:
        order = torch.argsort(batch.indices)
        seen[self.current_epoch] = torch.cat(
            [seen.get(self.current_epoch, torch.empty(0)), batch.inputs[order].flatten()]
        )
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(ImageClassifier, "training_step", remember)
    overrides = (f"data.path={images}", "freeze=head_only", "cache.views=2", "transform=strong", "data.batch_size=32")
    train(tmp_path / "run", *overrides)
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
