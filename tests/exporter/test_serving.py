"""The serving example, where neither torch nor this package can be imported."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finetune.classifier import Classifier
from finetune.exporter.model_card import SERVE
from finetune.predictions_file import PredictionsFile

REPOSITORY = Path(__file__).resolve().parents[2]
NEEDED = ("onnxruntime", "numpy", "pillow")


@pytest.fixture(scope="session")
def small_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which the plain interpreter sees onnxruntime, numpy and Pillow, and nothing else."""
    site = tmp_path_factory.mktemp("site")
    for name in NEEDED:
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(top))).resolve())
    return {"PYTHONPATH": str(site), "PATH": os.environ["PATH"]}


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return subprocess.run([base, "-S", *arguments], env=environment, capture_output=True, text=True, cwd="/")


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("preprocess", ["none", "graph"])
def test_onnxruntime_alone_writes_the_csv_that_predict_writes(
    task: str,
    preprocess: str,
    small_environment: dict[str, str],
    run_of: Callable[..., Path],
    export_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    for module in ("torch", "finetune", "timm"):
        assert python(small_environment, "-c", f"import {module}").returncode != 0, "this environment is too rich"
    ckpt = run_of(task=task)
    artefact = export_of(ckpt, f"exporter.preprocess={preprocess}")
    photos = tmp_path / "photos"
    source = next((ckpt.parent.parent / "images").rglob("*.png"))
    for number, size in enumerate([(61, 90), (90, 61), (100, 70), (64, 64)]):
        (photos / "sub").mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[274] = 5 + number
        Image.open(source).resize(size).save(photos / "sub" / f"{number}.jpg", exif=exif, quality=95)
    Image.open(source).convert("RGBA").save(photos / "clear.png")

    finished = python(small_environment, str(artefact.directory / "serve.py"), str(photos))
    assert finished.returncode == 0, finished.stderr
    theirs = rows_of(finished.stdout)

    classifier = Classifier.load(ckpt)
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    (chunk,) = classifier.scores(paths, batch_size=100)
    names = [path.relative_to(photos).as_posix() for path in paths]
    with PredictionsFile(tmp_path, classifier.classes) as file:
        file.write(classifier.predictions(names, chunk.logits_BK))
    ours = rows_of((tmp_path / "predictions.csv").read_text())

    assert [row[:3] for row in theirs] == [row[:3] for row in ours]
    assert theirs[0] == ours[0]
    # nothing here is so large that our loader would decode it at a reduced scale
    tolerance = 1e-4 if preprocess == "none" else 2e-2
    for their_row, our_row in zip(theirs[1:], ours[1:], strict=True):
        assert [float(cell) for cell in their_row[3:]] == pytest.approx(
            [float(cell) for cell in our_row[3:]], abs=tolerance
        )


def test_serving_example_is_short_and_the_same_everywhere(
    run_of: Callable[..., Path], export_of: Callable[..., Any]
) -> None:
    text = SERVE.read_text()
    assert len(text.splitlines()) < 60
    assert "torch" not in text
    assert "finetune" not in text
    assert text in (REPOSITORY / "docs" / "serving.md").read_text()
    artefact = export_of(run_of())
    assert text in (artefact.directory / "README.md").read_text()
    assert text == (artefact.directory / "serve.py").read_text()


@pytest.mark.parametrize("exporter", ["timm", "safetensors", "torchscript", "torch_export"])
def test_snippet_of_the_model_card_runs(
    exporter: str, run_of: Callable[..., Path], export_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = export_of(run_of(), f"exporter={exporter}")
    card = (artefact.directory / "README.md").read_text()
    snippet = card.partition("```python\n")[2].partition("```")[0]
    Image.open(next((run_of().parent.parent / "images" / "val" / "blue").iterdir())).save(
        artefact.directory / "photo.jpg"
    )
    monkeypatch.chdir(artefact.directory)
    printed: list[Any] = []
    exec(snippet, {"print": printed.append})
    assert len(printed) == 1
    if exporter != "torch_export":
        assert printed == ["blue"]
