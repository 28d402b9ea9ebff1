"""The class list is train's, end to end: figures of train and of evaluate are those worked by hand, whatever val holds.

Three classes that differ in hue are told apart without fail; one image of val stands in the wrong folder. So the
predictions are known beforehand, and every figure can be worked out with a pencil.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from finetune.config import CONF_DIR
from finetune.errors import DataError
from finetune.evaluating import evaluate
from tests.conftest import write_image_folder
from tests.engine.conftest import train

ALL = {"accuracy": 11 / 12, "balanced_accuracy": (1 + 1 + 3 / 4) / 3, "macro_f1": (8 / 9 + 1 + 6 / 7) / 3}
"""Ant 4 of 4, bee 4 of 4, cat 3 of 4 with the fourth called ant: F1 is 2*4/(4+5), 1 and 2*3/(4+3)."""
WITHOUT_BEE = {"accuracy": 7 / 8, "balanced_accuracy": (1 + 3 / 4) / 2, "macro_f1": (8 / 9 + 6 / 7) / 2}
"""Bee is neither there nor said to be: it counts in no average."""
PROBE = ("backbone=efficientnet_lite0", "freeze=head_only", "freeze.solve_head=true", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` with 6 images and ``val/`` with 4 of each class; cat/000.png of val shows an ant."""
    root = tmp_path_factory.mktemp("contract") / "images"
    write_image_folder(root, classes=tuple(f"train/{name}" for name in ("ant", "bee", "cat")), n=6)
    write_image_folder(root, classes=tuple(f"val/{name}" for name in ("ant", "bee", "cat")), n=4, seed=1)
    write_image_folder(root / "spare", classes=("ant", "bee", "cat"), n=1, seed=2)
    (root / "spare" / "ant" / "000.png").replace(root / "val" / "cat" / "000.png")
    shutil.rmtree(root / "spare")
    return root


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on ``images``; its figures on val are those by hand."""
    run = tmp_path_factory.mktemp("run")
    assert of(train(run, f"data.path={images}", *PROBE)["val"]) == pytest.approx(ALL)
    return run / "checkpoints" / "best.ckpt"


def of(figures: dict[str, float]) -> dict[str, float]:
    """The figures that are worked by hand."""
    return {name: figures[name] for name in ALL}


def evaluated(model: Path, root: Path, out: Path) -> dict[str, Any]:
    """``finetune.evaluate`` on val of ``root``."""
    overrides = [f"ckpt={model}", f"data.path={root}", "data.split=val", "device=cpu", "report=none"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("evaluate", overrides=overrides)
    return evaluate(cfg, out, ("ckpt", "data.path", "data.split", "device", "report"))


def changed(root: Path, case: str) -> None:
    """Make val what the case says."""
    val = root / "val"
    if case == "extra":
        shutil.copytree(val / "bee", val / "dog")
    elif case in ("renamed", "cased"):
        (val / "bee").rename(val / {"renamed": "bees", "cased": "Bee"}[case])
    elif case == "reordered":  # the disk lists folders as they were made
        val.rename(root / "old")
        for name in ("cat", "bee", "ant"):
            shutil.copytree(root / "old" / name, val / name)
        shutil.rmtree(root / "old")
    else:
        shutil.rmtree(val / "bee")
    if case == "empty":
        (val / "bee").mkdir()


def repaired(root: Path, case: str) -> None:
    """Do what the message asks for."""
    val = root / "val"
    if case == "extra":
        shutil.rmtree(val / "dog")
    else:
        (val / {"renamed": "bees", "cased": "Bee"}[case]).rename(val / "bee")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["missing", "extra", "renamed", "empty", "cased", "reordered"])
def test_figures_of_train_and_evaluate_are_those_worked_by_hand(
    images: Path, model: Path, case: str, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    shutil.copytree(images, root)
    changed(root, case)
    if case in ("extra", "renamed", "cased"):
        named = {"extra": "'dog'", "renamed": "'bees'", "cased": "'Bee'"}[case]
        for attempt in (
            lambda: evaluated(model, root, tmp_path / "refused"),
            lambda: train(tmp_path / "refused run", f"data.path={root}", *PROBE),
        ):
            with pytest.raises(DataError, match=f"val has class {named}, which train does not have"):
                attempt()
        assert json.loads((tmp_path / "refused run" / "result.json").read_text())["status"] == "failed"
        repaired(root, case)
    expected = WITHOUT_BEE if case in ("missing", "empty") else ALL
    found = evaluated(model, root, tmp_path / "out")
    assert found["classes"] == ["ant", "bee", "cat"]
    assert of(found["val"]) == pytest.approx(expected)
    trained = train(tmp_path / "run", f"data.path={root}", *PROBE)
    assert trained["classes"] == ["ant", "bee", "cat"]
    assert of(trained["val"]) == pytest.approx(expected)
