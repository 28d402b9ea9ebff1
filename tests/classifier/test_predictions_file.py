"""predictions.csv as other programs read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.metrics.predictions import Predictions
from finetune.predictions_file import PredictionsFile

CLASSES = ('a "quoted", name', "b", "c")
SCORES = np.array([[2.0, 0.0, -1.0], [0.0, 0.5, 0.2]], dtype=np.float32)
MADE = Predictions(("x,1.jpg", "y.jpg"), SCORES, np.array([0, -1]), CLASSES, temperature=2.0)


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    return np.exp(logits_NK) / np.exp(logits_NK).sum(axis=1, keepdims=True)


def test_columns_labels_and_calibrated_probabilities_survive_the_csv(tmp_path: Path) -> None:
    with PredictionsFile(tmp_path, CLASSES) as file:
        file.write(MADE.select(np.array([0])))
        file.write(MADE.select(np.array([1])))
        assert not file.path.exists()
    table = pd.read_csv(file.path, keep_default_na=False)
    assert list(table) == ["path", "label", "prediction", "confidence", *(f"prob_{name}" for name in CLASSES)]
    assert list(table["path"]) == ["x,1.jpg", "y.jpg"]
    assert list(table["label"]) == [CLASSES[0], ""]
    assert list(table["prediction"]) == [CLASSES[0], "b"]
    expected = softmax(SCORES / 2)
    np.testing.assert_allclose(table.iloc[:, 4:].to_numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(table["confidence"], expected.max(axis=1), rtol=1e-5)


def test_json_lines_hold_the_same(tmp_path: Path) -> None:
    with PredictionsFile(tmp_path, CLASSES, "jsonl") as file:
        file.write(MADE)
    records = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert file.path.name == "predictions.jsonl"
    assert records[1]["prediction"] == "b"
    assert records[0]["probabilities"] == pytest.approx(
        dict(zip(CLASSES, softmax(SCORES / 2)[0], strict=True)), rel=1e-5
    )


def test_multi_label_rows_join_their_labels_and_doubt_the_least_certain_one(tmp_path: Path) -> None:
    targets = np.array([[1.0, 0.0, 1.0]])
    made = Predictions(
        ("x.jpg",), np.array([[3.0, -2.0, 0.4]], np.float32), targets, ("a", "b", "c"), 1.0, (0.5, 0.1, 0.5)
    )
    with PredictionsFile(tmp_path, made.classes) as file:
        file.write(made)
    row = pd.read_csv(file.path).iloc[0]
    probabilities = 1 / (1 + np.exp(-np.array([3.0, -2.0, 0.4])))
    assert row["label"] == "a|c"
    assert row["prediction"] == "a|b|c"
    assert row["confidence"] == pytest.approx(probabilities[1], rel=1e-5)
    assert list(row[["prob_a", "prob_b", "prob_c"]]) == pytest.approx(list(probabilities), rel=1e-5)


def test_a_job_that_fails_leaves_no_half_written_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PredictionsFile(tmp_path, CLASSES) as file:  # noqa: PT012
        file.write(MADE)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_not_utf8_is_written_as_its_bytes(tmp_path: Path) -> None:
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    with PredictionsFile(tmp_path, CLASSES) as file:
        file.write(Predictions((odd,), SCORES[:1], np.array([-1]), CLASSES))
    assert b"caf\xe9.jpg" in file.path.read_bytes()
