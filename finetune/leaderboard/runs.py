"""Finished runs read from their directories: what each was asked to do, what it reached, what it cost.

A run's configuration is read as the overrides that lead to it from the defaults, so that runs of any origin (sweeps,
single commands, other machines) are compared key by key in the words of the command line.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from finetune.errors import DataError
from finetune.leaderboard.overrides import Inverse

REPLICATES = ("seed", "data.fold")
"""Keys whose values are repetitions of the same configuration."""
UNKNOWN = "(not set)"


class Run(NamedTuple):
    """One run; ``value`` is its monitor, None when it has none (a failed run)."""

    directory: Path
    status: str
    overrides: dict[str, str]
    settings: dict[str, str]
    """Every key of the configuration with its value, and every group with its option where it is the default."""
    monitor: str
    value: float | None
    metrics: dict[str, float]
    """``val/accuracy``, ``test/accuracy`` ..."""
    seconds: float
    error: str

    def setting(self, key: str) -> str:
        """The value of a key or the option of a group, given or not."""
        return self.overrides.get(key) or self.settings.get(key, UNKNOWN)

    @property
    def replicate(self) -> tuple[str, str]:
        """Seed and fold, as typed; the default where a run does not say."""
        seed, fold = (self.setting(key) for key in REPLICATES)
        return seed, fold


def read_runs(root: Path, monitor: str | None) -> list[Run]:
    """Every run below ``root``, in the order of their paths; ``monitor`` overrides the runs' own.

    Raises:
        DataError: there is no run, or the runs were judged by different monitors.
    """
    if not root.is_dir():
        raise DataError(
            f"runs={root} is not a folder; a folder of run directories is expected, such as runs or multirun"
        )
    inverse = Inverse()
    found = [run for path in sorted(root.rglob("result.json")) if (run := _read(path.parent, monitor, inverse))]
    if not found:
        raise DataError(f"runs={root} holds no run: no folder with result.json and config.yaml was found in it")
    monitors = Counter(run.monitor for run in found if run.value is not None)
    if len(monitors) > 1:
        named = ", ".join(f"{name} ({count})" for name, count in monitors.most_common())
        raise DataError(
            f"runs={root} were judged by different monitors: {named}; choose one, monitor={next(iter(monitors))}"
        )
    if not monitors:
        raise DataError(f"runs={root}: none of {len(found)} runs has a value" + (f" of {monitor}" if monitor else ""))
    return found


def varying(runs: Sequence[Run]) -> list[str]:
    """The keys in which the runs differ, seeds and folds left out."""
    keys = dict.fromkeys(key for run in runs for key in run.overrides if key not in REPLICATES)
    return [key for key in keys if len({run.setting(key) for run in runs}) > 1]


def _read(directory: Path, monitor: str | None, inverse: Inverse) -> Run | None:
    """None for a result that is not a training run's."""
    try:
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    config_path = directory / "config.yaml"
    if not isinstance(result, dict) or not (config_path.exists() or "monitor" in result):
        return None
    config: Any = OmegaConf.to_container(OmegaConf.load(config_path)) if config_path.exists() else {}
    metrics = {
        f"{split}/{name}": float(value)
        for split in ("val", "test")
        for name, value in (result.get(split) or {}).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    chosen = result.get("monitor") or {}
    name = monitor or str(chosen.get("name", ""))
    value = chosen.get("value") if name == chosen.get("name") else metrics.get(name)
    return Run(
        directory=directory,
        status=str(result.get("status", "")),
        overrides=inverse(config),
        settings=inverse.settings(config),
        monitor=name,
        value=None if value is None or result.get("status") != "completed" else float(value),
        metrics=metrics,
        seconds=float((result.get("seconds") or {}).get("total") or 0.0),
        error=str(result.get("error", "")),
    )
