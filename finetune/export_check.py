"""What an export is measured on: the run's own images, model and artefact side by side, sizes and latencies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig

from finetune import build
from finetune.checkpoint import Checkpoint
from finetune.classifier import Classifier
from finetune.data.image import read_image
from finetune.data.table import Table
from finetune.errors import ConfigError, DataError
from finetune.exporter.artefact import Description, Exportable, Exported, Runtime
from finetune.exporter.parity import Parity, compare
from finetune.metrics.predictions import Predictions
from finetune.torch_runtime import TorchRuntime


def images_of(cfg: DictConfig, checkpoint: Checkpoint) -> Table:
    """The images to compare on: those of ``data.path``, or those of the run, by the split.csv beside the checkpoint."""
    node = dict(checkpoint.config.get("data", {}))
    advice = "give data.path=DIR with images of the same classes, or parity=false to go without the comparison"
    if cfg.data.path is not None:
        node = {"_target_": "finetune.data.folder.FolderData", **node, "path": str(cfg.data.path), "split_file": None}
    elif not node.get("path"):
        raise DataError(f"ckpt={cfg.ckpt} does not say which images it was validated on; {advice}")
    else:
        split_file = checkpoint.path.parent.parent / "split.csv"
        if split_file.is_file():
            node |= {"split_file": str(split_file), "fold": None, "folds": None}
    try:
        table: Table = build.part(build.stored("data", node), checkpoint.config.get("seed", 0)).load(checkpoint.classes)
    except DataError as error:
        if cfg.data.path is not None:
            raise
        raise DataError(f"the images that the model was validated on cannot be read ({error}); {advice}") from error
    if cfg.data.split not in ("train", "val", "test", "all"):
        raise ConfigError(f"data.split={cfg.data.split}; expected val, test, train or all")
    if cfg.parity and not len(table.rows(cfg.data.split)):
        raise DataError(f"{table.root} has no images in data.split={cfg.data.split}; choose another split, or {advice}")
    return table


def compared(cfg: DictConfig, source: Exportable, runtime: Runtime, exported: Exported, table: Table) -> Parity:
    """Model and artefact on the same files, each with its own preprocessing."""
    rows = table.rows(cfg.data.split)
    paths = [table.path(int(row)) for row in rows]
    targets = table.targets[rows]
    model = Classifier(TorchRuntime(source.network, source.description))
    expected_NK = _scores(model, paths, cfg)
    if getattr(runtime, "takes_raw_images", False):
        background = runtime.description.preprocessing.background
        got_NK = np.stack([runtime.raw_logits(read_image(path, background=background)) for path in paths])  # type: ignore[attr-defined]
    else:
        got_NK = _scores(Classifier(runtime), paths, cfg)
    tolerance = exported.max_difference if exported.max_difference is not None else 0.0
    names = tuple(map(str, paths))
    sides = []
    for logits_NK, description in ((expected_NK, source.description), (got_NK, runtime.description)):
        sides.append(
            Predictions(names, logits_NK, targets, description.classes, description.temperature, description.thresholds)
        )
    return compare(sides[0], sides[1], tolerance=tolerance)


def _scores(classifier: Classifier, paths: list[Path], cfg: DictConfig) -> npt.NDArray[np.float32]:
    found = []
    for chunk in classifier.scores(paths, batch_size=cfg.data.batch_size, num_workers=cfg.data.num_workers):
        if chunk.unreadable:
            raise chunk.unreadable[0]
        found.append(chunk.logits_BK)
    return np.concatenate(found)


def training_images(table: Table, description: Description) -> Callable[[], Iterator[npt.NDArray[np.uint8]]]:
    """Training images in a fixed random order, so that the first few hundred come from every class."""
    rows = np.random.default_rng(0).permutation(table.rows("train"))
    preprocessing = description.preprocessing

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        for row in rows:
            image_HWC = read_image(
                table.path(int(row)), min_size_px=preprocessing.min_source_px, background=preprocessing.background
            )
            yield preprocessing.resize_crop(image_HWC)

    return images


def speed(source: Exportable, runtime: Runtime, directory: Path, runs: int) -> dict[str, Any]:
    """Sizes in MiB, and the median time of one image through the network, preprocessing left out."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in source.network.state_dict().values())
    files = [path for path in directory.rglob("model.*") if path.is_file()]
    image_BHWC = np.zeros((1, *source.description.preprocessing.size, 3), dtype=np.uint8)
    sides = {"model_ms": TorchRuntime(source.network, source.description), "artefact_ms": runtime}
    times = {key: _median_ms(side, image_BHWC, runs) if runs else None for key, side in sides.items()}
    return {
        "model_mib": round(weights / 2**20, 3),
        "artefact_mib": round(sum(path.stat().st_size for path in files) / 2**20, 3),
        **times,
    }


def _median_ms(runtime: Runtime, image_BHWC: npt.NDArray[np.uint8], runs: int) -> float:
    runtime.logits(image_BHWC)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        runtime.logits(image_BHWC)
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1e3, 3)
