"""What a W&B run keeps besides its curves: the exact split, the result, the report, and on request data and model.

Everything is read from the run directory at the end, so that a tracker needs nothing from the training but its files.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Literal

REPORT_MAX_BYTES = 20_000_000


def log_summary(run: Any, directory: Path) -> None:
    """The result's numbers and ``split.csv``: nothing that has to ask the server."""
    result = directory / "result.json"
    if result.exists():
        run.summary.update(summary(json.loads(result.read_text(encoding="utf-8"))))
    split = directory / "split.csv"
    if split.exists():
        kept = shutil.copy(split, run.dir)  # inside the run's own folder, or W&B warns that it links
        run.save(kept, base_path=run.dir, policy="now")


def log_media(run: Any, directory: Path) -> None:
    """Tables, figures and the report; online, W&B asks the server about each table before it goes on."""
    import wandb

    media: dict[str, Any] = {}
    if (directory / "split.csv").exists():
        columns, rows = class_counts(directory / "split.csv")
        media["split"] = wandb.Table(columns=columns, data=rows)
    report = directory / "report.html"
    if report.exists() and report.stat().st_size <= REPORT_MAX_BYTES:
        media["report"] = wandb.Html(report.read_text(encoding="utf-8"))
    media.update({f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted(directory.glob("figures/*.png"))})
    for path in sorted(directory.glob("*.csv")):
        if path.name not in ("split.csv", "metrics.csv"):
            media[f"tables/{path.stem}"] = _table(path)
    if media:
        run.log(media)


def log_artifacts(
    run: Any,
    directory: Path,
    config: dict[str, Any],
    *,
    dataset: Literal["none", "reference", "upload"],
    checkpoint: bool,
) -> None:
    """On request: the data set, by name and checksum or whole, and ``best.ckpt``."""
    import wandb

    if dataset != "none":
        _log_dataset(run, Path(config["data"]["path"]).absolute(), upload=dataset == "upload")
    best = directory / "checkpoints" / "best.ckpt"
    if checkpoint and best.exists():
        artifact = wandb.Artifact(f"model-{run.id}", type="model")
        artifact.add_file(str(best))
        run.log_artifact(artifact)


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The numbers of ``result.json`` as summary keys: ``best/val/accuracy``, ``test/accuracy`` ..."""
    flat: dict[str, Any] = {"status": result.get("status")}
    for split, prefix in (("val", "best/val/"), ("test", "test/"), ("seconds", "seconds/")):
        values = result.get(split) or {}
        flat.update({f"{prefix}{key}": value for key, value in values.items() if isinstance(value, int | float)})
    for key, value in (result.get("monitor") or {}).items():
        flat[f"monitor/{key}"] = value
    return flat


def class_counts(split_csv: Path) -> tuple[list[str | int], list[list[Any]]]:
    """Images per class and split: the columns ``class train val test`` and one row per class."""
    with split_csv.open(newline="", encoding="utf-8") as file:
        counts = Counter((row["label"], row["split"]) for row in csv.DictReader(file))
    splits = [name for name in ("train", "val", "test") if any(split == name for _, split in counts)]
    labels = sorted({label for label, _ in counts})
    return ["class", *splits], [[label, *(counts[label, split] for split in splits)] for label in labels]


def _table(path: Path) -> Any:
    import wandb

    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    return wandb.Table(columns=list(header), data=rows)


def _log_dataset(run: Any, path: Path, *, upload: bool) -> None:
    import wandb

    artifact = wandb.Artifact(f"dataset-{path.name}", type="dataset")
    if upload:
        artifact.add_dir(str(path))
    else:
        artifact.add_reference(path.as_uri(), max_objects=10_000_000)
    run.log_artifact(artifact)
