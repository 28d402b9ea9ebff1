"""A run's folder: where each file of it stands, and ``result.json``, which exists from the first second on."""

from __future__ import annotations

import importlib.metadata
import json
import math
from pathlib import Path
from typing import Any, Literal

from finetune.processes import is_first

Status = Literal["running", "completed", "failed", "interrupted"]
_PACKAGES = ("finetune", "torch", "torchvision", "lightning", "timm", "torchmetrics", "albumentations", "hydra-core")


class RunDirectory:
    """Paths of one run, and the only writer of its ``result.json``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.probe = self.checkpoints / "probe.ckpt"
        self.before_refit = self.checkpoints / "before_refit.ckpt"
        self.tuned = self.checkpoints / "tuned.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.config = root / "config.yaml"
        self.recipe = root / "recipe.json"
        self.lr_range = root / "lr_range.csv"
        self.split = root / "split.csv"
        self.data_report = root / "data_report.json"
        self.metrics = root / "metrics.csv"
        self.result = root / "result.json"
        self.report = root / "report.html"

    def set_aside(self) -> Path | None:
        """Rename ``checkpoints`` to ``checkpoints.1``, or the next free number; gives that folder, None if there is nothing."""
        if not self.checkpoints.is_dir() or not any(self.checkpoints.iterdir()):
            return None
        taken = [int(path.suffix[1:]) for path in self.root.glob("checkpoints.*") if path.suffix[1:].isdigit()]
        return self.checkpoints.rename(self.root / f"checkpoints.{max(taken, default=0) + 1}")

    def write_result(self, status: Status, **fields: Any) -> None:
        """Replace ``result.json``: ``status`` and ``fields``; numbers that are not finite become null.

        Of several processes only the first writes.
        """
        if not is_first():
            return
        write_json(self.result, {"status": status, **fields, "versions": versions()})


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not installed
            found[package] = "unknown"
    return found


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; numbers that are not finite become null, as JSON knows none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
