"""Several labels per image, end to end: train, evaluate and predict on labels in a CSV file, against scikit-learn."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as sk

LABELS = ("disc", "frame", "stripes")


def command(verb: str, *arguments: str) -> None:
    """``python -m finetune.VERB``, which must succeed."""
    line = [sys.executable, "-m", f"finetune.{verb}", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stdout + done.stderr


def picture(labels: set[str], rng: np.random.Generator) -> Image.Image:
    """Any of a bright disc, a dark frame and stripes, on a noisy ground."""
    pixels = rng.normal(128, 25, (64, 64, 3))
    down, across = np.mgrid[:64, :64]
    if "stripes" in labels:
        pixels[(down // 4) % 2 == 0] *= 0.6
    if "disc" in labels:
        row, column = rng.integers(22, 42, 2)
        pixels[(down - row) ** 2 + (across - column) ** 2 < 120] = (250, 240, 60)
    if "frame" in labels:
        pixels[(np.minimum(down, across) < 6) | (np.maximum(down, across) >= 58)] = (20, 20, 90)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write(root: Path, count: int, split_of: dict[int, str]) -> None:
    """Images and ``labels.csv``: every label in about half of them, some images without any."""
    rng = np.random.default_rng(3)
    (root / "images").mkdir(parents=True)
    with (root / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split"))
        for number in range(count):
            labels = {label for label in LABELS if rng.random() < 0.5}
            picture(labels, rng).save(root / "images" / f"{number:03d}.png")
            rows.writerow((f"{number:03d}.png", "|".join(sorted(labels)), split_of[number % 4]))


@pytest.mark.slow
def test_thresholds_and_figures_of_the_three_commands_are_those_of_scikit_learn(tmp_path: Path) -> None:
    write(tmp_path, 120, {0: "train", 1: "train", 2: "val", 3: "test"})
    data = ("data=csv", f"data.file={tmp_path / 'labels.csv'}", f"data.path={tmp_path / 'images'}",
            "data.multilabel=true")  # fmt: skip
    command("train", *data, "backbone=efficientnet_lite0", "data.image_size=64", "freeze=head_only",
            "freeze.solve_head=false", "trainer.max_epochs=25", "optimizer.lr=0.01", "monitor=val/map", "logger=csv",
            "report=none", f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    trained = json.loads((tmp_path / "run" / "result.json").read_text())
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"

    command(
        "evaluate", *data, f"ckpt={checkpoint}", "data.split=val", "report=none", f"hydra.run.dir={tmp_path / 'val'}"
    )
    command("evaluate", *data, f"ckpt={checkpoint}", "report=none", f"hydra.run.dir={tmp_path / 'test'}")
    tables = {
        split: pd.read_csv(tmp_path / split / "predictions.csv", keep_default_na=False) for split in ("val", "test")
    }
    truths = {split: decisions(table["label"]) for split, table in tables.items()}
    given = {split: table[[f"prob_{label}" for label in LABELS]].to_numpy() for split, table in tables.items()}

    # the thresholds are the best cuts on val: scikit-learn's curve of precision and recall has no better F1
    thresholds = [threshold_of(given["val"][:, k], decisions(tables["val"]["prediction"])[:, k]) for k in range(3)]
    for k, (low, high) in enumerate(thresholds):
        precision, recall, _ = sk.precision_recall_curve(truths["val"][:, k], given["val"][:, k])
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        assert sk.f1_score(truths["val"][:, k], given["val"][:, k] >= high) == pytest.approx(best)
        # and they hold, unchanged, for test
        said = decisions(tables["test"]["prediction"])[:, k]
        assert not (said & (given["test"][:, k] < low)).any()
        assert not (~said & (given["test"][:, k] > high)).any()

    for split, table in tables.items():
        figures = json.loads((tmp_path / split / "result.json").read_text())[split]
        said = decisions(table["prediction"])
        assert figures["map"] == pytest.approx(sk.average_precision_score(truths[split], given[split]), abs=1e-6)
        assert figures["f1"] == pytest.approx(sk.f1_score(truths[split], said, average="macro"))
        assert figures["micro_f1"] == pytest.approx(sk.f1_score(truths[split], said, average="micro"))
        assert figures["accuracy"] == pytest.approx(sk.accuracy_score(truths[split], said))
        assert figures["auroc"] == pytest.approx(sk.roc_auc_score(truths[split], given[split]), abs=1e-6)
        assert figures["map"] > 0.8, "nothing was learned, so nothing was shown"
        for name, value in trained[split].items():
            assert figures[name] == pytest.approx(value, abs=1e-5), name

    command("predict", f"input={tmp_path / 'images'}", f"ckpt={checkpoint}", f"hydra.run.dir={tmp_path / 'predicted'}")
    predicted = pd.read_csv(tmp_path / "predicted" / "predictions.csv", keep_default_na=False)
    assert len(predicted) == 120
    by_name = predicted.assign(path=[Path(path).name for path in predicted["path"]]).set_index("path")
    for table in tables.values():
        rows = by_name.loc[table["path"]]
        assert list(rows["prediction"]) == list(table["prediction"])
        columns = [f"prob_{label}" for label in LABELS]
        np.testing.assert_allclose(rows[columns].to_numpy(), table[columns].to_numpy(), atol=1e-6)


def decisions(cells: pd.Series) -> np.ndarray:
    """Cells such as ``disc|frame`` as truth values, one column per label."""
    return np.array([[label in cell.split("|") for label in LABELS] for cell in cells])


def threshold_of(scores: np.ndarray, said: np.ndarray) -> tuple[float, float]:
    """Where the cut lies: above the highest score that was turned down, at most the lowest that was taken."""
    low = scores[~said].max(initial=0.0)
    high = scores[said].min(initial=1.0)
    assert low < high, "one cut explains every decision"
    return low, high
