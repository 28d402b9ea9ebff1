"""The folds of one configuration are judged as one set, and only when all of them are there."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from finetune.leaderboard.out_of_fold import write_label_errors
from finetune.leaderboard.runs import read_runs

CLASSES = [str(number) for number in range(10)]


@pytest.fixture(scope="module")
def judged() -> pd.DataFrame:
    """Digits, 5% of them with a wrong label, each with the probabilities of the fold that left it out."""
    images_ND, true_N = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    labels_N = true_N.copy()
    flipped = rng.choice(len(true_N), size=round(0.05 * len(true_N)), replace=False)
    labels_N[flipped] = (true_N[flipped] + rng.integers(1, 10, len(flipped))) % 10
    table = pd.DataFrame({"path": [f"{row:04d}.png" for row in range(len(labels_N))], "label": labels_N.astype(str)})
    table["flipped"] = table.index.isin(flipped)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    for number, (seen, left_out) in enumerate(folds.split(images_ND, labels_N)):
        model = LogisticRegression(C=0.01, max_iter=300).fit(images_ND[seen] / 16.0, labels_N[seen])
        table.loc[left_out, [f"prob_{name}" for name in CLASSES]] = model.predict_proba(images_ND[left_out] / 16.0)
        table.loc[left_out, "fold"] = number
    shares_NK = table[[f"prob_{name}" for name in CLASSES]].to_numpy()
    table.insert(2, "prediction", shares_NK.argmax(axis=1).astype(str))
    table.insert(3, "confidence", shares_NK.max(axis=1))
    return table


def write_folds(write_run: Callable[..., Path], judged: pd.DataFrame, folds: range, name: str, value: float) -> None:
    for fold in folds:
        overrides = ["data.folds=3", f"data.fold={fold}", f"optimizer.lr={0.1 if name == 'a' else 0.2}"]
        directory = write_run(f"{name}{fold}", overrides, value)
        rows = judged[judged["fold"] == fold].drop(columns=["fold", "flipped"])
        rows.to_csv(directory / "predictions_val.csv", index=False)


def test_the_merged_folds_find_what_cleanlab_finds_on_the_whole(write_run, judged, tmp_path):
    from cleanlab.filter import find_label_issues

    write_folds(write_run, judged, range(3), "a", 0.9)
    write_folds(write_run, judged, range(2), "b", 0.95)  # better, but a fold is missing
    path = write_label_errors(read_runs(tmp_path / "runs", None), tmp_path, higher_is_better=True)
    assert path == tmp_path / "label_errors.csv"
    shares_NK = judged[[f"prob_{name}" for name in CLASSES]].to_numpy()
    expected = judged.iloc[find_label_issues(judged["label"].astype(int).to_numpy(), shares_NK, n_jobs=1)]
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["path"] for row in found} == set(expected["path"])
    by_path = judged.set_index("path")
    assert all(row["label"] == by_path.loc[row["path"], "label"] for row in found)
    suspicion = [float(row["label_probability"]) for row in found]
    assert suspicion == sorted(suspicion)
    first = [bool(by_path.loc[row["path"], "flipped"]) for row in found[: judged["flipped"].sum()]]
    assert np.mean(first) > 0.8  # chance is 0.05


def test_without_all_folds_there_is_no_list(write_run, judged, tmp_path):
    write_folds(write_run, judged, range(2), "a", 0.9)
    write_run("plain", [], 0.9)
    assert write_label_errors(read_runs(tmp_path / "runs", None), tmp_path, higher_is_better=True) is None
    assert not (tmp_path / "label_errors.csv").exists()
