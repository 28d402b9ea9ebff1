"""Everything a run is made of, built from its configuration: data, network, schedule, callbacks, trainer."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning
import numpy as np
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from finetune import build, describe
from finetune.cache.features import FeatureReuse
from finetune.callback.auto_batch import AutoBatch
from finetune.callback.bad_files import BadFiles
from finetune.callback.checkpointing import Checkpointing, SealedCheckpointIO
from finetune.callback.ema import EMA
from finetune.callback.finite import FiniteNumbers
from finetune.callback.interruption import Interruption
from finetune.callback.progress import progress
from finetune.callback.tracking import Tracking
from finetune.checkpoint import describe as describe_model
from finetune.checkpoint import read_payload
from finetune.compiled_steps import CompiledSteps, announcement
from finetune.data.examine import examine
from finetune.data.module import ImageData
from finetune.data.options import LoaderOptions
from finetune.data.table import Table
from finetune.epoch_metrics import epoch_metrics
from finetune.errors import ConfigError, DataError, TrainingError, combine
from finetune.following import follow, lines
from finetune.hardware import fast_precision
from finetune.model import ImageClassifier
from finetune.network import Network
from finetune.processes import is_first
from finetune.recipe import Facts
from finetune.redact import redact, secret_values
from finetune.run_directory import RunDirectory, versions, write_json
from finetune.solved_head import is_convex
from finetune.surroundings import monitor_problems
from finetune.transform.mix import Mix
from finetune.transform.none import NoAugmentation

log = logging.getLogger(__name__)
_EXPECTED_WARNINGS = (
    ".*dataloader is not resumable.*",  # it is: the loader asks the trainer where it stands instead of keeping a state
    ".*does not have many workers.*",
    ".*sync_dist=True.*",  # torchmetrics has summed over the processes
    ".*in eval mode at the start of training.*",  # frozen stages are
    ".*Grad strides do not match bucket view.*",  # a batch of one image: its convolution's gradient is not channels-last
    ".*smaller than the logging interval.*",  # only epoch figures are logged
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 with torch 2.15
)


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
    _write_config(cfg, run)
    lightning.seed_everything(cfg.seed, verbose=False)

    table, options, short_side_px = load_data(cfg, run, resume_from)
    if given is not None:
        cfg, choices = _follow_recipe(cfg, run, choices, table, short_side_px, given)
        options = replace(options, image_size=cfg.data.image_size, batch_size=cfg.data.batch_size)
    if cfg.optimizer.lr == "auto" and resume_from is not None:
        cfg = cfg.copy()
        cfg.optimizer.lr = _lr_of(resume_from)
    config = _write_config(cfg, run)
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


def _write_config(cfg: DictConfig, run: RunDirectory) -> dict[str, Any]:
    """The configuration as plain data without secrets, also in the run's ``config.yaml``."""
    config: dict[str, Any] = redact(OmegaConf.to_container(cfg, resolve=True), secret_values(os.environ))
    if is_first():
        run.config.write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")
    return config


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


def record_lr(parts: Parts, run: RunDirectory, lr: float, reason: str) -> None:
    """Put a rate that was found where a typed one would stand: ``config.yaml``, checkpoints, trackers, ``recipe.json``."""
    parts.cfg.optimizer.lr = lr
    parts.model.card["config"]["optimizer"]["lr"] = lr  # the loggers hold this same configuration
    _write_config(parts.cfg, run)
    if run.recipe.exists():
        record = json.loads(run.recipe.read_text(encoding="utf-8"))
        for decision in record["decisions"]:
            if decision["key"] == "optimizer.lr":
                decision |= {"value": lr, "reason": reason}
        write_json(run.recipe, record)


def _lr_of(checkpoint: Path) -> float:
    """The rate that the run of a checkpoint has, so that a resumed run does not look for another."""
    lr: float = read_payload(checkpoint)["finetune"]["config"]["optimizer"]["lr"]
    return lr


def _follow_recipe(
    cfg: DictConfig,
    run: RunDirectory,
    choices: Mapping[str, str],
    table: Table,
    short_side_px: int,
    given: Collection[str],
) -> tuple[DictConfig, Mapping[str, str]]:
    """Configuration and choices with what the recipe says of this data, on the screen and on record."""
    counts_K = table.counts("train")
    facts = Facts(
        recipe=cfg.recipe,
        pretrained=cfg.backbone.weights not in (None, "none"),
        multilabel=table.task == "multilabel",
        train=len(table.rows("train")),
        val=len(table.rows("val")),
        classes=len(table.classes),
        smallest=int(counts_K.min()),
        largest=int(counts_K.max()),
        short_side_px=short_side_px,
        balanced_sampler=cfg.data.sampler == "balanced",
    )
    resolved, done = follow(cfg, facts, given)
    _say(list(lines(cfg.recipe, facts, done)))
    if is_first():
        decisions = [decision._asdict() for decision in done]
        write_json(run.recipe, {"name": cfg.recipe, "facts": facts._asdict(), "decisions": decisions})
    decided = {entry.key: f"{cfg.recipe}: {entry.value}" for entry in done if entry.key == "freeze" and not entry.given}
    return resolved, {**choices, **decided}


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


def precision_of(cfg: DictConfig) -> str:
    """The precision as given, or what ``auto`` means on this machine."""
    return fast_precision(cfg.trainer.accelerator) if cfg.trainer.precision == "auto" else str(cfg.trainer.precision)


def make_callbacks(cfg: DictConfig, run: RunDirectory, data: ImageData) -> tuple[list[Callback], Interruption]:
    """The user's callbacks and ours, in the order in which they must act at the end of a step."""
    mode: Literal["min", "max"] = "min" if cfg.monitor.endswith(("loss", "ece")) else "max"
    chosen: list[Callback] = []
    for node in cfg.callback.values():
        takes_monitor = str(node._target_).endswith("EarlyStopping")
        chosen.append(build.part(node, cfg.monitor, mode) if takes_monitor else build.part(node))
    average = next((callback for callback in chosen if isinstance(callback, EMA)), None)
    checkpointing = Checkpointing(
        run, cfg.monitor, mode, cfg.checkpoint_every_n_steps, cfg.checkpoint_min_interval_s, average
    )
    interruption = Interruption(checkpointing)
    finite = FiniteNumbers(data.table, cfg.max_skipped_steps)
    tracking = Tracking(every_n_steps=cfg.log_every_n_steps)
    bad_files = BadFiles(data.table, data.options.max_bad_fraction)
    auto = [AutoBatch(data)] if data.options.batch_size == "auto" else []
    ours: list[Callback] = [*auto, tracking, *progress(cfg.monitor), checkpointing, interruption]
    return [bad_files, finite, *chosen, *ours], interruption


def make_trainer(
    cfg: DictConfig, run: RunDirectory, callbacks: list[Callback], loggers: list[Logger]
) -> lightning.Trainer:
    """Lightning's Trainer, with what must not be configured set here."""
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    node = cfg.trainer.copy()
    node.precision = precision_of(cfg)
    trainer = build.part(
        node,
        callbacks=callbacks,
        logger=loggers,
        plugins=[SealedCheckpointIO()],
        default_root_dir=str(run.root),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        num_sanity_val_steps=0,
        log_every_n_steps=1_000_000,  # epoch figures only
        use_distributed_sampler=False,
    )
    assert isinstance(trainer, lightning.Trainer)
    return trainer


def check_disk(run: RunDirectory, network: Network) -> None:
    """Raise ``TrainingError`` at the start when the checkpoints cannot fit on the disk.

    Three files of weights, gradient moments and perhaps an average: ten times the weights is a bound that AdamW with
    EMA stays under.
    """
    needed = 10 * sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    free = shutil.disk_usage(run.root).free
    if free < needed:
        raise TrainingError(
            f"{run.root} has {free / 2**20:.0f} MiB free and the checkpoints of this network need up to "
            f"{needed / 2**20:.0f} MiB; free some space, or place the run elsewhere with hydra.run.dir=DIR"
        )


def _mix(transform: Any, num_classes: int) -> Mix | None:
    if transform.mixup_alpha == 0 and transform.cutmix_alpha == 0:
        return None
    return Mix(num_classes, mixup_alpha=transform.mixup_alpha, cutmix_alpha=transform.cutmix_alpha)


def _say(lines: list[str]) -> None:
    for line in lines:
        log.info("%s", line)
