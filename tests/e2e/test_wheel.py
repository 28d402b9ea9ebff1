"""The wheel, installed in an environment of its own, trains and predicts from another directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(command: list[str | Path], folder: Path) -> str:
    """Run to a good end, with nothing of this checkout on Python's path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; what the wheel requires is borrowed from this one, not installed again."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT], folder)
    (wheel,) = folder.glob("finetune-*.whl")
    run([sys.executable, "-m", "venv", folder / "env"], folder)
    python = folder / "env" / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel], folder)
    (site_packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    # a path file adds the folder but does not follow the path files in it, so this checkout stays out
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_package_and_its_configuration_come_from_the_wheel(python, tmp_path):
    code = "import finetune, finetune.config as c; print(finetune.__file__); print(c.CONF_DIR)"
    places = run([python, "-c", code], tmp_path).split()
    assert all(Path(place).is_relative_to(python.parents[1]) for place in places)


def test_it_trains_and_predicts_from_another_directory(python, tmp_path, image_folder):
    image_folder("images", classes=("cat", "dog"), n=5)
    typed = ["data.path=images", "backbone=timm", "backbone.name=test_resnet", "backbone.weights=none"]
    fast = ["data.image_size=32", "data.num_workers=0", "trainer.max_epochs=1", "logger=csv", "hydra.run.dir=run"]
    run([python, "-m", "finetune.train", *typed, *fast], tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "completed"
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    run(
        [python, "-m", "finetune.predict", "ckpt=run/checkpoints/best.ckpt", "input=images", "hydra.run.dir=out"],
        tmp_path,
    )
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 11


@pytest.mark.parametrize("verb", ["train", "check", "evaluate", "predict", "export", "summarize"])
def test_every_command_has_its_help_and_its_configuration(verb, python, tmp_path):
    assert f"python -m finetune.{verb}" in run([python, "-m", f"finetune.{verb}", "--help"], tmp_path)
    assert run([python, "-m", f"finetune.{verb}", "--cfg", "job"], tmp_path)
    assert list(tmp_path.iterdir()) == []
