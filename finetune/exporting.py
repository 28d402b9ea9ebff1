"""One export from checkpoint to artefact: write beside the target, open it again, compare, and only then give it its name.

A directory ``NAME.part`` that a failed or killed export leaves is no artefact; the next export removes it.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig

from finetune import build
from finetune.checkpoint import Checkpoint, read_checkpoint
from finetune.classifier import Classifier
from finetune.data.image import read_image
from finetune.data.table import Table
from finetune.download import local_copy
from finetune.errors import CheckpointError, ConfigError, DataError, ExportError
from finetune.exporter import safetensors
from finetune.exporter.artefact import METADATA, MODEL_CARD, Description, Exportable, Exported, Runtime, write_metadata
from finetune.exporter.model_card import model_card
from finetune.exporter.parity import Parity, check, compare
from finetune.metrics.predictions import Predictions
from finetune.opening import open_runtime
from finetune.run_directory import versions
from finetune.torch_runtime import TorchRuntime

log = logging.getLogger(__name__)
PART = ".part"


class Artefact(NamedTuple):
    """A finished export."""

    directory: Path
    metadata: dict[str, Any]


def export(cfg: DictConfig) -> Artefact:
    """Export as configured.

    Raises:
        ExportError: the network cannot be written in this format, or what was written does not behave as the model did;
            nothing is left that looks finished.
    """
    name = str(cfg.exporter._target_).split(".")[-2]
    exporter = build.part(cfg.exporter)
    checkpoint = read_model(str(cfg.ckpt))
    target = _target(cfg, checkpoint, name)
    table = _table(cfg, checkpoint) if cfg.parity or getattr(exporter, "precision", "") == "int8" else None
    source = exportable(checkpoint, table)

    part = target.with_name(target.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        exported: Exported = exporter(source, part)
        fields = _fields(name, checkpoint, source, exported)
        metadata = write_metadata(part, {**fields, "parity": None, "speed": None})
        runtime = exported.runtime or open_runtime(part)
        parity = _compare(cfg, source, runtime, exported, table) if cfg.parity and table is not None else None
        fields |= {"parity": parity and parity.to_dict(), "speed": _speed(source, runtime, part, cfg.latency_runs)}
        _say(name, fields, parity)
        if parity is not None:
            limits = {"max_difference": exported.max_difference, "max_accuracy_drop": exported.max_accuracy_drop}
            check(parity, **limits, title=f"exporter={name}")
        (part / MODEL_CARD).write_text(model_card(fields), encoding="utf-8")
        metadata = write_metadata(part, fields)
        _give_name(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    for note in exported.notes:
        log.warning("note       %s", note)
    log.info("written    %s", target)
    if hasattr(exporter, "publish") and (address := exporter.publish(target)):
        log.info("published  %s", address)
    return Artefact(target, metadata)


def read_model(ckpt: str) -> Checkpoint:
    """A training checkpoint, or a directory that ``exporter=safetensors`` wrote, from here or from an http(s) address."""
    path = local_copy(ckpt).expanduser()
    directory = path if path.is_dir() else path.parent
    if path.suffix == ".safetensors" or (path.is_dir() and (path / METADATA).is_file()):
        if not (directory / safetensors.MODEL).is_file() or (directory / "config.json").is_file():
            raise CheckpointError(
                f"ckpt={ckpt} is an artefact without the architecture in it; export from the checkpoint (.ckpt), or from "
                "a directory that exporter=safetensors wrote"
            )
        return safetensors.read(directory)
    return read_checkpoint(path)


def exportable(checkpoint: Checkpoint, table: Table | None) -> Exportable:
    """The checkpoint's network and description, with the table's training images for calibration."""
    description = Description(
        task="multilabel" if checkpoint.task == "multilabel" else "multiclass",
        classes=checkpoint.classes,
        preprocessing=checkpoint.preprocessing,
        temperature=checkpoint.temperature,
        thresholds=checkpoint.thresholds,
    )
    has_training_images = table is not None and len(table.rows("train")) > 0
    return Exportable(
        network=build.network_from_checkpoint(checkpoint),
        description=description,
        backbone=dict(checkpoint.config["backbone"]),
        head=dict(checkpoint.config["head"]),
        calibration=_training_images(table, description) if table is not None and has_training_images else None,
    )


def _training_images(table: Table, description: Description) -> Callable[[], Iterator[npt.NDArray[np.uint8]]]:
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


def _target(cfg: DictConfig, checkpoint: Checkpoint, name: str) -> Path:
    """Where the artefact goes; raises ``ConfigError`` when something stands there."""
    if cfg.output is not None:
        target = Path(str(cfg.output)).expanduser()
    else:
        variant = [str(cfg.exporter[key]) for key in ("precision", "preprocess") if key in cfg.exporter]
        label = "-".join([name, *(word for word in variant if word not in ("fp32", "none"))])
        folder = checkpoint.path.parent
        target = (folder.parent if folder.name == "checkpoints" else folder) / "exports" / label
    if (target / METADATA).is_file() and not cfg.overwrite:
        raise ConfigError(
            f"output={target} holds an artefact already; say overwrite=true to replace it, or another output="
        )
    if target.exists() and not (target / METADATA).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"output={target} exists and is no artefact; give the path of a new directory")
    return target


def _table(cfg: DictConfig, checkpoint: Checkpoint) -> Table:
    """The images to compare on: those of ``data.path``, or those of the run, by the split.csv beside the checkpoint."""
    node = dict(checkpoint.config.get("data", {}))
    advice = "give data.path=DIR with images of the same classes, or parity=false to go without the comparison"
    if cfg.data.path is not None:
        node = {"_target_": "finetune.data.folder.FolderData", "class_from": node.get("class_from", "top")} | {
            key: node[key] for key in ("val_fraction", "test_fraction", "split_by") if key in node
        }
        node["path"] = str(cfg.data.path)
        if node.get("split_by") is None:
            node.pop("split_by", None)
    elif not node.get("path"):
        raise DataError(f"ckpt={cfg.ckpt} does not say which images it was validated on; {advice}")
    else:
        split_file = checkpoint.path.parent.parent / "split.csv"
        if split_file.is_file():
            node |= {"split_file": str(split_file), "fold": None, "folds": None}
    try:
        table: Table = build.part(node, checkpoint.config.get("seed", 0)).load(checkpoint.classes)
    except DataError as error:
        if cfg.data.path is not None:
            raise
        raise DataError(f"the images that the model was validated on cannot be read ({error}); {advice}") from error
    if cfg.data.split not in ("train", "val", "test", "all"):
        raise ConfigError(f"data.split={cfg.data.split}; expected val, test, train or all")
    if cfg.parity and not len(table.rows(cfg.data.split)):
        raise DataError(f"{table.root} has no images in data.split={cfg.data.split}; choose another split, or {advice}")
    return table


def _compare(cfg: DictConfig, source: Exportable, runtime: Runtime, exported: Exported, table: Table) -> Parity:
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


def _fields(name: str, checkpoint: Checkpoint, source: Exportable, exported: Exported) -> dict[str, Any]:
    """metadata.json, but for the figures."""
    return {
        "exporter": name,
        **source.description.to_dict(),
        "backbone": {"name": source.backbone["name"], "weights": checkpoint.backbone.get("weights", "")},
        "head": source.head,
        "metrics": checkpoint.metrics,
        "versions": {"trained": checkpoint.versions, "exported": versions()},
        **exported.details,
        "notes": list(exported.notes),
    }


def _speed(source: Exportable, runtime: Runtime, directory: Path, runs: int) -> dict[str, Any]:
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


def _say(name: str, fields: dict[str, Any], parity: Parity | None) -> None:
    speed = fields["speed"]
    log.info("exporter   %s", name)
    if parity is not None:
        log.info(
            "parity     %d images: probabilities differ by at most %.2g, %.2f%% equal decisions",
            parity.images, parity.max_difference, 100 * parity.agreement,
        )  # fmt: skip
        if parity.accuracy_model is not None:
            log.info("accuracy   %.4f, the model's %.4f", parity.accuracy_artefact, parity.accuracy_model)
    log.info("size       %.1f MiB, the model's weights %.1f MiB", speed["artefact_mib"], speed["model_mib"])
    if speed["artefact_ms"] is not None:
        ratio = speed["model_ms"] / speed["artefact_ms"]
        log.info(
            "latency    %.1f ms an image, the model %.1f ms (x%.1f)", speed["artefact_ms"], speed["model_ms"], ratio
        )


def _give_name(part: Path, target: Path) -> None:
    """Rename; an artefact that stood there before is moved away first and removed after."""
    try:
        if target.exists():
            old = target.with_name(target.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
            os.replace(part, target)
            shutil.rmtree(old)
        else:
            os.replace(part, target)
    except OSError as error:
        raise ExportError(f"output={target} could not be written ({error.strerror or error})") from error
