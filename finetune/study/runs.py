"""Finished runs as the studies read them: configuration, result and the metrics of every epoch."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Run:
    """One run directory; ``metrics`` has one row of numbers per epoch."""

    directory: Path
    config: dict[str, Any]
    result: dict[str, Any]
    metrics: tuple[dict[str, float], ...]

    @property
    def backbone(self) -> dict[str, Any]:
        """The backbone's keys as configured."""
        node: dict[str, Any] = self.config.get("backbone") or {}
        return node

    def curve(self, metric: str) -> list[float]:
        """``metric`` by epoch."""
        return [row[metric] for row in self.metrics if metric in row]

    def test(self, metric: str) -> float | None:
        """``metric`` on the test split, else on the validation split; None when the run did not end."""
        split = self.result.get("test") or self.result.get("val") or {}
        value = split.get(metric)
        return None if value is None else float(value)


def find(folder: Path) -> list[Run]:
    """Every run below ``folder``, in the order of their paths; a folder without a configuration is none."""
    results = sorted(folder.rglob("result.json"))
    return [_read(path.parent) for path in results if (path.parent / "config.yaml").exists()]


def _read(directory: Path) -> Run:
    config: Any = OmegaConf.to_container(OmegaConf.load(directory / "config.yaml"))
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    metrics: list[dict[str, float]] = []
    if (directory / "metrics.csv").exists():
        with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
            metrics = [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]
    return Run(directory, config, result, tuple(metrics))
