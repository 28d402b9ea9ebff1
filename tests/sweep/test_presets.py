"""Every preset of ``sweep=`` and the W&B sweep: their keys exist and their values are accepted by the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from finetune.command_line import problems
from finetune.config import CONF_DIR
from finetune.sweep.run import METHODS
from finetune.sweep.space import Dimension, dimensions
from tests.conftest import REPOSITORY, write_image_folder

PRESETS = sorted(path.stem for path in (CONF_DIR / "sweep").glob("*.yaml"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("presets") / "images", n=3)


def _problems(images: Path, *overrides: str) -> list[str]:
    found = problems("train", [f"data.path={images}", *overrides], config_dir=None, multirun=False, to_be_run=False)
    return [str(problem) for problem in found]


def _both_ends(dimension: Dimension) -> list[str]:
    values = dimension.values if dimension.interval is None else tuple(f"{x:g}" for x in dimension.interval[:2])
    return [f"{dimension.key}={value}" for value in values]


def _values(parameter: dict[str, Any]) -> list[Any]:
    return parameter.get("values") or [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_space_of_a_preset_is_accepted(preset: str, images: Path) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        sweep: Any = OmegaConf.to_container(compose("train", [f"sweep={preset}"]).sweep)
    assert sweep["method"] in METHODS
    space = dimensions(sweep["space"], [])
    fixed = [text for dimension in space if dimension.is_fixed for text in _both_ends(dimension)]
    ends = [_both_ends(dimension) for dimension in space if not dimension.is_fixed]
    for texts in (*zip(*ends), [texts[-1] for texts in ends]):
        assert _problems(images, *fixed, *texts) == []


def test_a_sweep_over_an_interval_is_a_sound_command_line(images: Path) -> None:
    words = [f"data.path={images}", "sweep=optuna", "optimizer.lr=tag(log,interval(1e-5,1e-2))", "freeze=none,lp_ft"]
    assert problems("train", words, config_dir=None, multirun=True, to_be_run=False) == []


def test_the_sweep_of_wandb_is_accepted(images: Path) -> None:
    sweep: Any = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "sweep" / "wandb.yaml"))
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", [])
    assert sweep["metric"]["name"] == cfg.monitor
    for pick in (0, -1):
        chosen = [f"{key}={_values(parameter)[pick]}" for key, parameter in sweep["parameters"].items()]
        fixed = [word for word in sweep["command"][4:] if "=" in word and not word.startswith("data.path")]
        assert _problems(images, *fixed, *chosen) == []
    assert sweep["command"][:4] == ["${env}", "python", "-m", "finetune.train"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
