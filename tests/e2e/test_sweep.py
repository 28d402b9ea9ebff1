"""Sweeps of real trainings on real handwritten digits: search, pruning, engines, and the soup of three seeds."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.checkpoint import read_checkpoint
from finetune.leaderboard.runs import read_runs
from finetune.leaderboard.soup import make_soup

pytestmark = pytest.mark.slow

_TINY = (
    "data.image_size=32", "data.batch_size=16", "data.num_workers=0", "backbone=timm", "backbone.name=test_resnet",
    "backbone.weights=none", "freeze=none", "transform=none", "trainer=cpu", "trainer.precision=32-true", "report=none",
    "logger=csv",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-two handwritten digits of each class, from scikit-learn."""
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("digits") / "images"
    found = load_digits()
    for number in range(10):
        (root / str(number)).mkdir(parents=True)
        for place, pixels in enumerate(found.images[found.target == number][:32]):
            image = Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((32, 32), Image.Resampling.NEAREST)
            image.convert("RGB").save(root / str(number) / f"{place:02d}.png")
    return root


def _start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "finetune.train", *_TINY, *words]
    return subprocess.Popen(
        command, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _finished(*words: str) -> tuple[int, str]:
    process = _start(*words)
    output, _ = process.communicate()
    return process.returncode, output


def _values(directory: Path) -> list[tuple[str, str, str]]:
    with (directory / "sweep.csv").open(newline="") as file:
        return [(row["directory"], row["status"], row["value"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", pytest.param("ray", marks=pytest.mark.long)])
def test_an_engine_trains_to_the_same_bits_as_this_machine(launcher: str, digits: Path, tmp_path: Path) -> None:
    words = ("-m", f"data.path={digits}", "trainer.max_epochs=2", "optimizer.lr=1e-3,1e-2", "seed=1,2")
    words += ("sweep.threads_per_job=1",)
    here, there = tmp_path / "s" / "here", tmp_path / "s" / "there"
    assert _finished(*words, f"hydra.sweep.dir={here}", "hydra.launcher.n_jobs=2")[0] == 0
    code, output = _finished(*words, f"hydra.sweep.dir={there}", f"hydra/launcher={launcher}")
    assert code == 0, output
    assert _values(there) == _values(here)
    assert len(_values(here)) == 4
    for best in here.glob("*/checkpoints/best.ckpt"):
        other = read_checkpoint(there / best.relative_to(here)).state_dict
        assert all(value.equal(other[name]) for name, value in read_checkpoint(best).state_dict.items())


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_a_search_that_is_killed_half_way_beats_the_neighbours_of_the_default(digits: Path, tmp_path: Path) -> None:
    import optuna

    directory = tmp_path / "s" / "search"
    words = ("-m", f"data.path={digits}", "trainer.max_epochs=8", "sweep=optuna", "sweep.space=null", "sweep.trials=20")
    words += ("data.val_fraction=0.75",)  # 80 images to learn from and 240 to judge by: one is 0.4% of the monitor
    words += ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={directory}")
    process = _start(*words)
    while len(list(directory.glob("*/result.json"))) < 9:
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, output = _finished(*words, "sweep.resume=true")
    assert code == 0, output
    storage = f"sqlite:///{directory}/optuna.db"
    study = optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage)
    assert len(study.trials) == 20
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    neighbours = [word for word in words if not word.startswith(("sweep", "optimizer.lr", "hydra.sweep"))]
    neighbours += ["optimizer.lr=1e-4,1e-2"]
    assert _finished(*neighbours, f"hydra.sweep.dir={tmp_path / 's' / 'neighbours'}")[0] == 0
    assert study.best_value > max(float(value) for _, _, value in _values(tmp_path / "s" / "neighbours"))
    epochs = sum(len(path.read_text().splitlines()) - 1 for path in directory.glob("*/metrics.csv"))
    print(f"best {study.best_value:.3f} at {study.best_params}; {epochs} of {20 * 8} epochs were run")
    assert epochs <= 0.9 * 20 * 8  # at least a tenth of all epochs is saved


@pytest.mark.long
def test_a_soup_of_three_seeds_is_as_good_as_the_best_or_not_kept(digits: Path, tmp_path: Path) -> None:
    """Fine-tuned from the same solved head, as in the default recipe, so that the runs lie in one basin."""
    words = [f"data.path={digits}", "backbone.name=tf_efficientnet_lite0", "backbone.weights=pretrained"]
    words += ["freeze=lp_ft", "data.image_size=64", "trainer.max_epochs=2", "transform=light"]
    first, sweep = tmp_path / "first", tmp_path / "s" / "o"
    assert _finished(*words, f"hydra.run.dir={first}")[0] == 0
    words += [f"data.split_file={first / 'split.csv'}", "seed=1,2,3", f"hydra.sweep.dir={sweep}"]
    code, output = _finished("-m", *words)
    assert code == 0, output
    runs = read_runs(sweep, None)
    assert len(runs) == 3
    soup = make_soup(runs, tmp_path / "soup.ckpt", higher_is_better=True)
    if soup is None:
        assert not (tmp_path / "soup.ckpt").exists()
    else:
        assert read_checkpoint(soup).monitor["value"] > max(run.value or 0.0 for run in runs)
