"""Train, then evaluate what was trained: the two commands agree about the same images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn import metrics as sk


def command(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"finetune.{verb}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_evaluate_repeats_the_figures_of_the_run_on_its_own_split(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    images = image_folder(classes=("amber", "blue", "coral"), n=20)
    run = tmp_path / "run"
    trained = command(
        "train", f"data.path={images}", "backbone=efficientnet_lite0", "data.image_size=64", "trainer.max_epochs=1",
        "freeze=head_only", "logger=csv", "report.gradcam=false", f"hydra.run.dir={run}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    out = tmp_path / "evaluated"
    evaluated = command(
        "evaluate", f"ckpt={run / 'checkpoints' / 'best.ckpt'}", f"data.path={images}", "data.split=val",
        f"hydra.run.dir={out}",
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    expected, found = (json.loads((folder / "result.json").read_text()) for folder in (run, out))
    for name, value in expected["val"].items():
        assert found["val"][name] == pytest.approx(value, abs=1e-5), name
    table = pd.read_csv(out / "predictions.csv")
    pd.testing.assert_frame_equal(pd.read_csv(run / "predictions_val.csv"), table, atol=1e-5)
    split = pd.read_csv(run / "split.csv")
    assert sorted(table["path"]) == sorted(split.loc[split["split"] == "val", "path"])
    assert found["val"]["accuracy"] == pytest.approx(sk.accuracy_score(table["label"], table["prediction"]))
    assert_is_a_page(out / "report.html", found)
    assert_is_a_page(run / "report.html", expected)

    wrong = command("evaluate", f"ckpt={run / 'checkpoints' / 'best.ckpt'}", f"data.path={images}")
    assert wrong.returncode == 2
    assert "has no test images; it has train (48), val (12)" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def assert_is_a_page(path: Path, result: dict[str, Any]) -> None:
    markup = path.read_text(encoding="utf-8")
    assert f"{100 * result['val']['accuracy']:.1f}%" in markup
    assert "http://" not in markup.replace("http://www.w3.org", "")
    assert "https://" not in markup


@pytest.mark.slow
def test_figures_on_val_of_a_model_that_was_refitted_on_it_carry_a_warning(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    images = image_folder(n=10)
    run = tmp_path / "run"
    trained = command(
        "train", f"data.path={images}", "backbone=efficientnet_lite0", "data.image_size=64", "recipe=fast",
        "refit=true", "logger=csv", "report=none", f"hydra.run.dir={run}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    expected = json.loads((run / "result.json").read_text())["val"]
    for name, warned in (("best.ckpt", True), ("before_refit.ckpt", False)):
        out = tmp_path / name
        options = (f"data.path={images}", "data.split=val", "report=none", f"hydra.run.dir={out}")
        evaluated = command("evaluate", f"ckpt={run / 'checkpoints' / name}", *options)
        assert evaluated.returncode == 0, evaluated.stderr
        assert ("the model was trained on val as well" in evaluated.stdout + evaluated.stderr) == warned
        found = json.loads((out / "result.json").read_text())["val"]
        assert (found == pytest.approx(expected, abs=1e-5)) != warned
