"""One evaluation job in this process: its numbers against scikit-learn on its predictions.csv, its split, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from sklearn import metrics as sk

from finetune.config import CONF_DIR
from finetune.errors import ConfigError, DataError, FinetuneError
from finetune.evaluating import evaluate

Job = Callable[..., dict[str, Any]]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """``job("ckpt=...", "data.path=...")``: the job's result; its files are in ``tmp_path/out``."""

    def run(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = compose("evaluate", overrides=[*overrides, "device=cpu"])
        return evaluate(cfg, tmp_path / "out", tuple(text.partition("=")[0] for text in overrides))

    return run


@pytest.fixture
def images(image_folder: Callable[..., Path]) -> Path:
    """``test/`` and ``val/`` of the checkpoint's three classes, eight images in each."""
    folders = [f"{split}/{name}" for split in ("val", "test") for name in ("amber", "blue", "coral")]
    return image_folder(classes=folders, n=8)


def table_of(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)


def test_result_predictions_and_page_agree_with_each_other(job: Job, ckpt: Path, images: Path, tmp_path: Path) -> None:
    found = job(f"ckpt={ckpt}", f"data.path={images}")
    table = table_of(tmp_path)
    assert list(table["path"]) == sorted(table["path"])
    assert len(table) == 24
    assert all(
        path.split("/")[:2] == ["test", label] for path, label in zip(table["path"], table["label"], strict=True)
    )
    probabilities_NK = table[["prob_amber", "prob_blue", "prob_coral"]].to_numpy()
    figures = found["test"]
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(table["label"], table["prediction"]))
    assert figures["loss_calibrated"] == pytest.approx(sk.log_loss(table["label"], probabilities_NK), rel=1e-4)
    expected = sk.roc_auc_score(table["label"], probabilities_NK, multi_class="ovr", average="macro")
    assert figures["auroc"] == pytest.approx(expected, abs=1e-6)
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert written["status"] == "completed"
    assert written["test"] == figures
    assert "val" not in written
    matrix = sk.confusion_matrix(table["label"], table["prediction"], labels=written["classes"])
    assert written["details"]["confusion_matrix"] == matrix.tolist()
    assert f"{100 * figures['accuracy']:.1f}%" in (tmp_path / "out" / "report.html").read_text()


def test_classes_are_matched_by_name_not_by_position(job: Job, ckpt: Path, images: Path, tmp_path: Path) -> None:
    before = job(f"ckpt={ckpt}", f"data.path={images}", "report=none")["test"]["accuracy"]
    right = table_of(tmp_path).query("label == prediction and label != 'amber'")
    for path in (images / "test" / "amber").iterdir():
        path.unlink()
    (images / "test" / "amber").rmdir()
    found = job(f"ckpt={ckpt}", f"data.path={images}", "report=none")
    assert found["test"]["accuracy"] == pytest.approx(len(right) / 16)
    assert found["classes"] == ["amber", "blue", "coral"]
    assert 0 < before < 1


def test_a_class_the_model_does_not_know_is_an_error(job: Job, ckpt: Path, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(classes=("test/amber", "test/zebra"), n=2)
    with pytest.raises(DataError, match="zebra"):
        job(f"ckpt={ckpt}", f"data.path={folder}")


def test_a_split_that_is_not_there_is_answered_with_those_that_are(job: Job, ckpt: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"no train images; it has val \(24\), test \(24\)"):
        job(f"ckpt={ckpt}", f"data.path={images}", "data.split=train")
    with pytest.raises(ConfigError, match=r"data.split=dev is unknown"):
        job(f"ckpt={ckpt}", f"data.path={images}", "data.split=dev")
    assert job(f"ckpt={ckpt}", f"data.path={images}", "data.split=all", "report=none")["all"]["accuracy"] > 0


def test_an_undivided_folder_is_divided_as_the_run_divided_it(
    job: Job, checkpoint_of: Callable[..., Path], image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(classes=("amber", "blue", "coral"), n=10)
    node = {"_target_": "finetune.data.folder.FolderData", "path": str(folder), "val_fraction": 0.5}
    ckpt = checkpoint_of(tmp_path / "run" / "checkpoints" / "best.ckpt", config={"data": node, "seed": 5})
    job(f"ckpt={ckpt}", f"data.path={folder}", "data.split=val", "report=none")
    drawn = set(table_of(tmp_path)["path"])
    assert len(drawn) == 15
    # with the run's own split.csv beside the checkpoint, exactly its images
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    lines = [f"{row},{'val' if number < 4 else 'train'}," for number, row in enumerate(rows)]
    (tmp_path / "run" / "split.csv").write_text("\n".join(["path,label,split,sha256", *lines]) + "\n")
    job(f"ckpt={ckpt}", f"data.path={folder}", "data.split=val", "report=none")
    assert list(table_of(tmp_path)["path"]) == [row.partition(",")[0] for row in rows[:4]]
    # what the user says counts
    job(f"ckpt={ckpt}", f"data.path={folder}", "data.split=val", "data.val_fraction=0.2", "report=none")
    assert len(table_of(tmp_path)) == 6


def test_two_models_are_compared_on_the_same_images_whatever_the_order_of_their_classes(
    job: Job, ckpt: Path, checkpoint_of: Callable[..., Path], images: Path, tmp_path: Path
) -> None:
    other = checkpoint_of(tmp_path / "other.ckpt", seed=1, classes=("coral", "amber", "blue"))
    found = job(f"ckpt={ckpt}", f"data.path={images}", f"compare={other}")["comparison"]
    alone = job(f"ckpt={other}", f"data.path={images}", "report=none")["test"]["accuracy"]
    assert found["other_accuracy"] == pytest.approx(alone)
    assert found["accuracy"] - found["other_accuracy"] == pytest.approx(found["difference"])
    assert found["difference"] == pytest.approx((found["only_first"] - found["only_second"]) / 24)
    foreign = checkpoint_of(tmp_path / "foreign.ckpt", classes=("amber", "blue", "zebra"))
    with pytest.raises(ConfigError, match=r"compare=.*foreign.ckpt has other classes than.*coral, zebra"):
        job(f"ckpt={ckpt}", f"data.path={images}", f"compare={foreign}")


def test_unreadable_images_are_left_out_named_and_end_with_exit_code_one(
    job: Job, ckpt: Path, images: Path, tmp_path: Path
) -> None:
    (images / "test" / "blue" / "003.png").write_bytes(b"not a picture")
    with pytest.raises(FinetuneError, match=r"(?s)1 of 24 images could not be read.*test/blue/003.png") as caught:
        job(f"ckpt={ckpt}", f"data.path={images}")
    assert caught.value.exit_code == 1
    assert len(table_of(tmp_path)) == 23
    assert len(json.loads((tmp_path / "out" / "result.json").read_text())["unreadable"]) == 1
    assert "1 image could not be read and is not counted" in (tmp_path / "out" / "report.html").read_text()


def test_views_change_scores_but_not_rows(job: Job, ckpt: Path, images: Path, tmp_path: Path) -> None:
    job(f"ckpt={ckpt}", f"data.path={images}", "report=none")
    plain = table_of(tmp_path)
    job(f"ckpt={ckpt}", f"data.path={images}", "report=none", "tta=flip")
    flipped = table_of(tmp_path)
    assert list(plain["path"]) == list(flipped["path"])
    assert not np.allclose(plain["prob_blue"], flipped["prob_blue"])
    mirrored = tmp_path / "mirrored" / "test"
    for path in sorted((images / "test").rglob("*.png")):
        target = mirrored / path.relative_to(images / "test")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target)
    job(f"ckpt={ckpt}", f"data.path={mirrored.parent}", "report=none", "tta=flip")
    np.testing.assert_allclose(table_of(tmp_path)["prob_blue"], flipped["prob_blue"], atol=1e-3)
