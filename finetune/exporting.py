"""One export from checkpoint to artefact: write beside the target, open it again, compare, only then give it its name.

A directory ``NAME.part`` that a failed or killed export leaves is no artefact; the next export removes it.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from finetune import build
from finetune.checkpoint import Checkpoint, read_checkpoint
from finetune.data.table import Table
from finetune.download import local_copy
from finetune.errors import CheckpointError, ConfigError, ExportError
from finetune.export_check import compared, images_of, speed, training_images
from finetune.exporter import safetensors
from finetune.exporter.artefact import METADATA, MODEL_CARD, Description, Exportable, Exported, write_metadata
from finetune.exporter.model_card import model_card
from finetune.exporter.parity import Parity, check
from finetune.opening import open_runtime
from finetune.run_directory import versions

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
    table = images_of(cfg, checkpoint) if cfg.parity or getattr(exporter, "precision", "") == "int8" else None
    source = exportable(checkpoint, table)

    part = target.with_name(target.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        exported: Exported = exporter(source, part)
        fields = _fields(name, checkpoint, source, exported)
        metadata = write_metadata(part, {**fields, "parity": None, "speed": None})
        runtime = exported.runtime or open_runtime(part)
        parity = compared(cfg, source, runtime, exported, table) if cfg.parity and table is not None else None
        fields |= {"parity": parity and parity.to_dict(), "speed": speed(source, runtime, part, cfg.latency_runs)}
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
    """A training checkpoint, here or at an http(s) address, or a directory that ``exporter=safetensors`` wrote."""
    path = local_copy(ckpt).expanduser()
    directory = path if path.is_dir() else path.parent
    if path.suffix == ".safetensors" or (path.is_dir() and (path / METADATA).is_file()):
        if not (directory / safetensors.MODEL).is_file() or (directory / "config.json").is_file():
            raise CheckpointError(
                f"ckpt={ckpt} is an artefact that holds no architecture; export from the checkpoint (.ckpt), or from a "
                "directory that exporter=safetensors wrote"
            )
        return safetensors.read(directory)
    return read_checkpoint(path)


def exportable(checkpoint: Checkpoint, table: Table | None) -> Exportable:
    """The checkpoint's network and description, with the table's training images for calibration."""
    description = Description.of(checkpoint)
    has_training_images = table is not None and len(table.rows("train")) > 0
    return Exportable(
        network=build.network_from_checkpoint(checkpoint),
        description=description,
        backbone=dict(checkpoint.config["backbone"]),
        head=dict(checkpoint.config["head"]),
        calibration=training_images(table, description) if table is not None and has_training_images else None,
    )


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
            target.replace(old)
            part.replace(target)
            shutil.rmtree(old)
        else:
            part.replace(target)
    except OSError as error:
        raise ExportError(f"output={target} could not be written ({error.strerror or error})") from error
