"""Scores on stored features beside the network's own: the same numbers, rows and complaints, and never a stale one."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from finetune import classifier as module
from finetune import pooled
from finetune.cache.features import FeatureCache
from finetune.checkpoint import read_payload, write_checkpoint
from finetune.classifier import Classifier
from finetune.config import CONF_DIR
from finetune.errors import FinetuneError
from finetune.evaluating import evaluate
from finetune.network import Network
from finetune.predicting import predict
from tests.conftest import write_image_folder
from tests.engine.conftest import train


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[int, int]]]:
    """(from cache, all) of each line about pooled features so far."""
    caplog.set_level(logging.INFO, logger="finetune")

    def lines() -> list[tuple[int, int]]:
        found = [re.search(r"features  (\d+) of (\d+) from cache", record.getMessage()) for record in caplog.records]
        return [(int(match[1]), int(match[2])) for match in found if match]

    return lines


def job(verb: str, out: Path, *overrides: str) -> pd.DataFrame:
    """The table of an evaluation or prediction in this process."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose(verb, overrides=[*overrides, "device=cpu"])
    typed = tuple(text.partition("=")[0] for text in overrides)
    evaluate(cfg, out, typed) if verb == "evaluate" else predict(cfg, out, typed)
    return pd.read_csv(out / "predictions.csv")


def scores(classifier: Classifier, paths: list[Path], batch_size: int = 3) -> tuple[list[int], Any, list[str]]:
    chunks = list(classifier.scores(paths, batch_size=batch_size))
    rows = np.concatenate([chunk.rows for chunk in chunks]).tolist()
    return rows, np.concatenate([chunk.logits_BK for chunk in chunks]), [str(e) for c in chunks for e in c.unreadable]


@pytest.fixture
def odd_paths(photographs: Path, tmp_path: Path) -> list[Path]:
    """Twelve pictures, a copy, two copies of a damaged file, an empty one and one that is not there."""
    paths = sorted(photographs.rglob("*.png"))
    (tmp_path / "odd").mkdir()
    copy = Path(shutil.copy(paths[3], tmp_path / "odd" / "copy.png"))
    damaged = [tmp_path / "odd" / "one.png", tmp_path / "odd" / "two.png"]
    for path in damaged:
        path.write_bytes(paths[0].read_bytes()[:200])
    (tmp_path / "odd" / "empty.png").touch()
    return [
        *paths[:2], damaged[0], *paths[2:6], copy, tmp_path / "odd" / "empty.png", tmp_path / "absent.png", damaged[1],
        *paths[6:],
    ]  # fmt: skip


@pytest.mark.parametrize("window", [4, 1024])
def test_rows_scores_and_complaints_are_those_without_a_store_cold_and_warm(
    window: int, ckpt: Path, odd_paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    monkeypatch.setattr(module, "_WINDOW", window)
    rows, logits_NK, unreadable = scores(Classifier.load(ckpt, device="cpu"), odd_paths)
    assert len(rows) == 13
    assert len(unreadable) == 4
    cache = FeatureCache(dir=str(tmp_path / "store"))
    cold = scores(Classifier.load(ckpt, device="cpu", cache=cache), odd_paths)
    monkeypatch.setattr(pooled, "Trunk", None)  # what cannot be read is missing for ever, and nothing else
    warm = scores(Classifier.load(ckpt, device="cpu", cache=cache), odd_paths)
    for found in (cold, warm):
        assert found[0] == rows
        np.testing.assert_allclose(found[1], logits_NK, atol=1e-5)
        assert found[2] == unreadable
    assert said() == [(0, 17), (13, 17)]


def test_evaluating_a_probe_after_its_training_computes_no_feature(
    tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_image_folder(tmp_path / "images", n=8, size=(40, 40))
    found = train(tmp_path / "run", f"data.path={images}", "freeze=head_only", "trainer.precision=bf16-mixed")
    trained = len(said())
    ckpt = tmp_path / "run" / "checkpoints" / "best.ckpt"
    words = (f"ckpt={ckpt}", f"data.path={images}", "data.split=val", "report=none")
    plain = job("evaluate", tmp_path / "plain", *words, "cache=none")
    assert len(said()) == trained
    with monkeypatch.context() as patched:
        patched.setattr(Network, "forward", None)
        patched.setattr(pooled, "Trunk", None)
        stored = job("evaluate", tmp_path / "stored", *words)
    assert said()[trained:] == [(6, 6)]
    pd.testing.assert_frame_equal(stored, plain, atol=1e-5)
    assert found["val"]["accuracy"] == pytest.approx((plain["label"] == plain["prediction"]).mean())
    every = job("predict", tmp_path / "all", f"ckpt={ckpt}", f"input={images}")
    assert said()[trained + 1 :] == [(6, 24)], "the images that were trained on were stored in bfloat16"
    again = job("predict", tmp_path / "again", f"ckpt={ckpt}", f"input={images}")
    assert said()[trained + 2 :] == [(24, 24)]
    pd.testing.assert_frame_equal(again, every)


def changed_weight(ckpt: Path, path: Path, name: str) -> Path:
    payload = read_payload(ckpt)
    payload["state_dict"][name] = payload["state_dict"][name] * 1.5
    write_checkpoint(payload, path)
    return path


@pytest.mark.parametrize("name", ["network.backbone.conv1.0.weight", "network.backbone.bn1.running_var"])
def test_another_weight_never_meets_the_features_of_the_old_one(
    name: str, ckpt: Path, photographs: Path, tmp_path: Path, said: Any
) -> None:
    paths = sorted(photographs.rglob("*.png"))
    cache = FeatureCache(dir=str(tmp_path / "store"))
    old = scores(Classifier.load(ckpt, device="cpu", cache=cache), paths)[1]
    other = changed_weight(ckpt, tmp_path / "other.ckpt", name)
    expected_NK = scores(Classifier.load(other, device="cpu"), paths)[1]
    found_NK = scores(Classifier.load(other, device="cpu", cache=cache), paths)[1]
    assert said() == [(0, 12), (0, 12)]
    assert np.abs(expected_NK - old).max() > 1e-3
    np.testing.assert_allclose(found_NK, expected_NK, atol=1e-5)


def test_another_head_on_the_same_backbone_shares_its_features(
    ckpt: Path, photographs: Path, tmp_path: Path, said: Any
) -> None:
    paths = sorted(photographs.rglob("*.png"))
    cache = FeatureCache(dir=str(tmp_path / "store"))
    scores(Classifier.load(ckpt, device="cpu", cache=cache), paths)
    other = changed_weight(ckpt, tmp_path / "other.ckpt", "network.head.linear.weight")
    expected_NK = scores(Classifier.load(other, device="cpu"), paths)[1]
    np.testing.assert_allclose(
        scores(Classifier.load(other, device="cpu", cache=cache), paths)[1], expected_NK, atol=1e-5
    )
    assert said() == [(0, 12), (12, 12)]


def test_another_size_and_another_image_under_the_same_name_are_computed_anew(
    ckpt: Path, photographs: Path, tmp_path: Path, said: Any
) -> None:
    folder = shutil.copytree(photographs, tmp_path / "images")
    paths = sorted(folder.rglob("*.png"))
    cache = FeatureCache(dir=str(tmp_path / "store"))
    scores(Classifier.load(ckpt, device="cpu", cache=cache), paths)
    payload = read_payload(ckpt)
    payload["finetune"]["preprocessing"]["size"] = [48, 48]
    payload["finetune"]["config"] = payload["finetune"]["config"] | {"data": {}}
    write_checkpoint(payload, tmp_path / "small.ckpt")
    status = paths[5].stat()
    Image.open(paths[4]).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(paths[5])
    os.utime(paths[5], ns=(status.st_atime_ns, status.st_mtime_ns))
    for path, expected in ((tmp_path / "small.ckpt", (0, 12)), (ckpt, (11, 12))):
        live_NK = scores(Classifier.load(path, device="cpu"), paths)[1]
        stored_NK = scores(Classifier.load(path, device="cpu", cache=cache), paths)[1]
        np.testing.assert_allclose(stored_NK, live_NK, atol=1e-5)
        assert said()[-1] == expected


def test_an_image_that_changed_since_the_split_was_written_is_scored_as_it_is_now(tmp_path: Path, said: Any) -> None:
    """split.csv carries the old hash, and the store the old features."""
    images = write_image_folder(tmp_path / "images", n=8, size=(40, 40))
    train(tmp_path / "run", f"data.path={images}", "freeze=head_only")
    split = pd.read_csv(tmp_path / "run" / "split.csv").query("split == 'val'")
    first = images / split["path"].iloc[0]
    Image.new("RGB", (40, 40), (1, 2, 250)).save(first)
    words = (f"ckpt={tmp_path / 'run' / 'checkpoints' / 'best.ckpt'}", f"data.path={images}", "data.split=val")
    stored = job("evaluate", tmp_path / "stored", *words, "report=none")
    assert said()[-1] == (5, 6)
    plain = job("evaluate", tmp_path / "plain", *words, "report=none", "cache=none")
    pd.testing.assert_frame_equal(stored, plain, atol=1e-5)


def test_a_budget_that_is_used_up_and_a_trunk_that_differs_are_said_and_computed_live(
    ckpt: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="finetune")
    monkeypatch.setattr(module, "_WINDOW", 4)
    paths = sorted(photographs.rglob("*.png"))
    expected_NK = scores(Classifier.load(ckpt, device="cpu"), paths)[1]
    features_D = Classifier.load(ckpt, device="cpu").runtime.network.head.linear.in_features  # type: ignore[attr-defined]
    cache = FeatureCache(dir=str(tmp_path / "store"), max_gb=5 * features_D * 4 / 1e9)
    few = Classifier.load(ckpt, device="cpu", cache=cache)
    np.testing.assert_allclose(scores(few, paths)[1], expected_NK, atol=1e-5)
    assert "cache.max_gb" in caplog.text
    assert "0 of 8 from cache" in caplog.text, "two windows, then live"

    monkeypatch.setattr(pooled, "difference", lambda *_: 0.5)
    unsound = Classifier.load(ckpt, device="cpu", cache=FeatureCache(dir=str(tmp_path / "other")))
    np.testing.assert_allclose(scores(unsound, paths)[1], expected_NK, atol=1e-5)
    assert "live: this network" in caplog.text
    assert not list((tmp_path / "other").rglob("*.safetensors"))


def test_a_store_that_cannot_be_written_is_one_warning(
    ckpt: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WINDOW", 4)
    (tmp_path / "file").touch()
    table = job("predict", tmp_path / "out", f"ckpt={ckpt}", f"input={photographs}", f"cache.dir={tmp_path}/file/store")
    assert len(table) == 12
    assert len([record for record in caplog.records if "cannot be stored" in record.getMessage()]) == 1


def test_a_damaged_image_is_named_and_the_rest_predicted_with_and_without_a_store(
    ckpt: Path, photographs: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photographs, tmp_path / "images")
    (folder / "a" / "03.png").write_bytes(b"damaged")
    messages = []
    for name, words in (("cold", ()), ("warm", ()), ("none", ("cache=none",))):
        with pytest.raises(FinetuneError) as caught:
            job("predict", tmp_path / name, f"ckpt={ckpt}", f"input={folder}", *words)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] == messages[2]
    assert "03.png" in messages[0]
    tables = [pd.read_csv(tmp_path / name / "predictions.csv") for name in ("cold", "warm", "none")]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2], atol=1e-5)


def test_tta_and_arrays_are_computed_live(ckpt: Path, photographs: Path, tmp_path: Path, said: Any) -> None:
    path = min(photographs.rglob("*.png"))
    plain, stored = (
        Classifier.load(ckpt, device="cpu", cache=cache) for cache in (None, FeatureCache(dir=str(tmp_path / "store")))
    )
    for sources, options in (([path], {"tta": "flip"}), ([np.asarray(Image.open(path).convert("RGB"))], {})):
        expected, found = (list(model.scores(sources, **options)) for model in (plain, stored))  # type: ignore[arg-type]
        assert np.array_equal(expected[0].logits_BK, found[0].logits_BK)
    assert said() == []
    assert not (tmp_path / "store").exists()


def test_bytes_are_known_by_their_content_like_files(ckpt: Path, photographs: Path, tmp_path: Path, said: Any) -> None:
    path = min(photographs.rglob("*.png"))
    model = Classifier.load(ckpt, device="cpu", cache=FeatureCache(dir=str(tmp_path / "store")))
    (of_file,), (of_bytes,) = (list(model.scores([source])) for source in (path, path.read_bytes()))
    assert np.array_equal(of_file.logits_BK, of_bytes.logits_BK)
    assert said() == [(0, 1), (1, 1)]
