"""One prediction job in this process: rows, damaged files, contradictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from finetune.classifier import Classifier
from finetune.config import CONF_DIR
from finetune.errors import ConfigError, FinetuneError
from finetune.predicting import Result, distinct, predict

Job = Callable[..., Result]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """``job("ckpt=...", "input=...")`` writes into ``tmp_path/out``."""

    def run(*overrides: str) -> Result:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = compose("predict", overrides=[*overrides, "device=cpu"])
        return predict(cfg, tmp_path / "out", tuple(text.partition("=")[0] for text in overrides))

    return run


def test_rows_are_those_of_the_python_api_in_path_order(job: Job, ckpt: Path, photographs: Path) -> None:
    written = job(f"ckpt={ckpt}", f"input={photographs}", "batch_size=5")
    table = pd.read_csv(written.path, keep_default_na=False)
    expected = Classifier.load(ckpt, device="cpu").predict(sorted(photographs.rglob("*.png"), key=str))
    assert list(table["path"]) == [prediction.path for prediction in expected]
    assert list(table["prediction"]) == [prediction.label for prediction in expected]
    assert set(table["label"]) == {""}
    np.testing.assert_allclose(table["confidence"], [prediction.confidence for prediction in expected], atol=1e-5)


def test_of_a_hundred_files_five_damaged_ones_are_named_and_the_rest_predicted(
    job: Job, ckpt: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(100):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{number:03d}.jpg")
    whole = (folder / "000.jpg").read_bytes()
    damaged = {
        "007.jpg": b"",
        "021.jpg": whole[:400],
        "050.jpg": b"text",
        "051.jpg": whole[:20],
        "099.jpg": bytes(5000),
    }
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
    with pytest.raises(FinetuneError) as caught:
        job(f"ckpt={ckpt}", f"input={folder}")
    assert caught.value.exit_code == 1
    assert "5 of 100 images could not be read" in str(caught.value)
    assert all(name in str(caught.value) for name in damaged)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert sorted(Path(path).name for path in table["path"]) == sorted(
        {f"{number:03d}.jpg" for number in range(100)} - set(damaged)
    )


def test_json_lines_on_request(job: Job, ckpt: Path, photographs: Path) -> None:
    written = job(f"ckpt={ckpt}", f"input={photographs / 'a' / '01.png'}", "format=jsonl")
    (record,) = [json.loads(line) for line in written.path.read_text().splitlines()]
    assert set(record) == {"path", "label", "prediction", "confidence", "probabilities"}


def test_contradictions_and_odd_values_are_all_reported(job: Job, ckpt: Path, photographs: Path) -> None:
    wrong = ("format=xml", "tta=spin", "batch_size=0", "num_workers=0", "backbone.name=resnet18", "image_size=96")
    with pytest.raises(ConfigError) as caught:
        job(f"ckpt={ckpt}", f"input={photographs}", *wrong)
    message = str(caught.value)
    for key in ("format=xml", "tta=spin", "batch_size=0", "num_workers=0", "leave out backbone.name, image_size"):
        assert key in message


def test_the_backbones_own_classes_name_photographs_without_any_training(job: Job, tmp_path: Path) -> None:
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    for name, pixels in zip(("china.jpg", "flower.jpg"), samples.images, strict=True):
        Image.fromarray(pixels).save(tmp_path / name, quality=95)
    written = job("backbone=efficientnet_lite0", f"input={tmp_path}")
    table = pd.read_csv(written.path, keep_default_na=False)
    assert dict(zip(table["path"].map(lambda path: Path(path).name), table["prediction"], strict=True)) == {
        "china.jpg": "palace",
        "flower.jpg": "daisy",
    }
    columns = [name for name in table if name.startswith("prob_")]
    assert len(columns) == len(set(columns)) == 1000
    np.testing.assert_allclose(table[columns].sum(axis=1), 1.0, atol=1e-4)


def test_names_that_occur_twice_are_told_apart() -> None:
    assert distinct(("crane", "hen", "crane", "maillot", "crane")) == (
        "crane",
        "hen",
        "crane (2)",
        "maillot",
        "crane (3)",
    )
