"""Synthetic runs: result.json and config.yaml as train writes them, without any training."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from finetune.config import CONF_DIR

Write = Callable[..., Path]


@functools.cache
def _composed(groups: tuple[str, ...]) -> str:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return OmegaConf.to_yaml(compose("train", ["data.path=images", *groups]), resolve=True)


@pytest.fixture
def write_run(tmp_path: Path) -> Write:
    """``write_run(name, overrides, value, ...)`` writes one finished run below ``tmp_path/runs``."""

    def write(
        name: str, overrides: list[str], value: float | None, *, status: str = "completed", **fields: Any
    ) -> Path:
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        groups = tuple(text for text in overrides if "." not in text.partition("=")[0] and not text.startswith("seed"))
        cfg = OmegaConf.create(_composed(groups))
        for text in overrides:
            if text not in groups:
                key, _, content = text.partition("=")
                OmegaConf.update(cfg, key, OmegaConf.create(f"x: {content}").x)
        (directory / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
        result = {
            "status": status,
            "monitor": None if value is None else {"name": "val/balanced_accuracy", "value": value, "epoch": 3},
            "val": {} if value is None else {"balanced_accuracy": value, "loss": 1 - value},
            "test": {} if value is None else {"balanced_accuracy": value - 0.01},
            "seconds": {"total": 90.0},
            **fields,
        }
        (directory / "result.json").write_text(json.dumps(result))
        return directory

    return write
