"""Everything a run is made of, built from its configuration: data, network, schedule, callbacks, trainer."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from finetune import build, describe
from finetune.cache.features import FeatureReuse
from finetune.callback.interruption import Interruption
from finetune.checkpoint import describe as describe_model
from finetune.compiled_steps import CompiledSteps, announcement
from finetune.data.examine import examine
from finetune.data.module import ImageData
from finetune.data.options import LoaderOptions
from finetune.data.table import Table
from finetune.epoch_metrics import epoch_metrics
from finetune.errors import ConfigError, DataError, combine
from finetune.model import ImageClassifier
from finetune.processes import is_first
from finetune.run_directory import RunDirectory, versions, write_json
from finetune.settling import follow_recipe, lr_of, write_config
from finetune.solved_head import is_convex
from finetune.surroundings import monitor_problems
from finetune.trainer import check_disk, make_callbacks, make_trainer, precision_of
from finetune.transform.mix import Mix
from finetune.transform.none import NoAugmentation

log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What a run is made of, once everything is built, and the configuration that the recipe has completed."""

    cfg: DictConfig
    table: Table
    model: ImageClassifier
    data: ImageData
    trainer: lightning.Trainer
    interruption: Interruption


def assemble(
    cfg: DictConfig,
    run: RunDirectory,
    choices: Mapping[str, str],
    given: Collection[str] | None,
    loggers: list[Logger],
    resume_from: Path | None,
) -> Parts:
    """Build everything, and say what was found and what will be trained. ``loggers`` is filled in place."""
    write_config(cfg, run)
    lightning.seed_everything(cfg.seed, verbose=False)

    table, options, short_side_px = load_data(cfg, run, resume_from)
    if given is not None:
        cfg, choices = follow_recipe(cfg, run, choices, table, short_side_px, given)
        options = replace(options, image_size=cfg.data.image_size, batch_size=cfg.data.batch_size)
    if cfg.optimizer.lr == "auto" and resume_from is not None:
        cfg = cfg.copy()
        cfg.optimizer.lr = lr_of(resume_from)
    config = write_config(cfg, run)
    for problem in monitor_problems(cfg.monitor, multilabel=table.task == "multilabel", num_classes=len(table.classes)):
        raise problem

    model, data = make_model(cfg, table, options, config)
    freeze_name = build.resolve_freeze(cfg.freeze, pretrained=bool(model.card["backbone"]["weights"]))[0]
    _say(describe.network_lines(model.network, cfg.backbone.name, model.card["backbone"]["weights"], choices["head"]))
    schedule_name = f"auto: {freeze_name}" if freeze_name else choices["freeze"]
    _say(describe.schedule_lines(model.network, model.schedule, schedule_name))
    check_disk(run, model.network)
    loggers.extend(build.part(node, run.root, config) for node in cfg.logger.values() if is_first())
    callbacks, interruption = make_callbacks(cfg, run, data)
    trainer = make_trainer(cfg, run, callbacks, loggers)
    if cfg.optimizer.lr == "auto" and trainer.world_size > 1:
        raise ConfigError(
            f"optimizer.lr=auto is found in one process, and this run has {trainer.world_size}; find it with "
            "trainer.devices=1, then type the number"
        )
    if cfg.compile:
        model.steps = CompiledSteps(model.network)
        _say([announcement(model.schedule, trainer.strategy.root_device.type)])
    return Parts(cfg, table, model, data, trainer, interruption)


def make_model(
    cfg: DictConfig, table: Table, options: LoaderOptions, config: dict[str, Any]
) -> tuple[ImageClassifier, ImageData]:
    """What trains and what it trains on, by a completed configuration; ``config`` is the same without secrets."""
    backbone = build.backbone(cfg.backbone, cfg.data.image_size)
    network = build.network(backbone, cfg.head, len(table.classes))
    _, freeze = build.resolve_freeze(cfg.freeze, pretrained=bool(backbone.weights))
    loss = build.part(build.resolve_loss(cfg.loss, table.task), torch.from_numpy(table.counts("train")))
    solve = freeze.solve_head and cfg.trainer.max_epochs > 0 and is_convex(network.head, loss)
    schedule = build.schedule(freeze, network, cfg.trainer.max_epochs, solve_head=solve)
    transform = build.part(cfg.transform, backbone.preprocessing)
    card = describe_model(
        task=table.task,
        classes=table.classes,
        preprocessing=backbone.preprocessing,
        config=config,
        backbone={"name": cfg.backbone.name, "weights": backbone.weights},
        versions=versions(),
    )
    model = ImageClassifier(
        network,
        schedule,
        build.part(cfg.optimizer),
        build.part(cfg.scheduler),
        loss,
        _mix(transform, len(table.classes)),
        backbone.preprocessing,
        epoch_metrics(table.task, len(table.classes)),
        card,
        cfg.seed,
    )
    data = ImageData(table, backbone.preprocessing, transform, options, cfg.seed)
    model.reuse = data.reuse = feature_reuse(cfg, model, data)
    return model, data


def load_data(cfg: DictConfig, run: RunDirectory, resume_from: Path | None) -> tuple[Table, LoaderOptions, int]:
    """The examined table of this run, the loader's options and the median short side; a resumed run has its old images.

    Raises:
        DataError: the data set cannot be trained on; every finding is listed.
    """
    node = cfg.data.copy()
    if resume_from is not None and run.split.exists():
        node.split_file = str(run.split)
    source = build.part(node, cfg.seed)
    found = examine(source.load(), progress=sys.stderr.isatty())
    if is_first():
        write_json(run.data_report, found.to_dict())
    if found.problems:
        raise combine([DataError(problem) for problem in found.problems])
    table = found.clean()
    if len(table.rows("val")) == 0:
        raise DataError(
            f"data.path={cfg.data.path} leaves no image for validation (data.val_fraction={cfg.data.val_fraction}); "
            "give a larger fraction, or add a val/ folder"
        )
    if is_first():
        table.write_csv(run.split)
    _say(describe.data_lines(table))
    for warning in found.warnings:
        log.warning("data      %s", warning)
    sides_N = np.minimum(found.heights, found.widths)
    return table, source.options, int(np.median(sides_N[sides_N > 0]))


def feature_reuse(cfg: DictConfig, model: ImageClassifier, data: ImageData) -> FeatureReuse | None:
    """The stored activations of this run's frozen phases, or None with ``cache=none``."""
    cache = build.feature_cache(cfg)
    if cache is None:
        return None
    plain = {group: OmegaConf.to_container(cfg[group], resolve=True) for group in ("backbone", "transform")}
    return FeatureReuse(
        cache,
        model.network,
        model.schedule,
        data.preprocessing,
        data.image_source(),
        {**plain, "seed": cfg.seed},
        torch.bfloat16 if precision_of(cfg).startswith("bf16") else torch.float32,
        augments=not isinstance(data.transform, NoAugmentation),
    )


def _mix(transform: Any, num_classes: int) -> Mix | None:
    if transform.mixup_alpha == 0 and transform.cutmix_alpha == 0:
        return None
    return Mix(num_classes, mixup_alpha=transform.mixup_alpha, cutmix_alpha=transform.cutmix_alpha)


def _say(lines: list[str]) -> None:
    for line in lines:
        log.info("%s", line)
