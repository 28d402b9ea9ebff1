"""The configuration of a run settled: what the recipe adds, and a rate that was found, on the screen and on record."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from finetune.checkpoint import read_payload
from finetune.data.table import Table
from finetune.following import follow, lines
from finetune.processes import is_first
from finetune.recipe import Facts
from finetune.redact import redact, secret_values
from finetune.run_directory import RunDirectory, write_json

log = logging.getLogger(__name__)


def write_config(cfg: DictConfig, run: RunDirectory) -> dict[str, Any]:
    """The configuration as plain data without secrets, also in the run's ``config.yaml``."""
    config: dict[str, Any] = redact(OmegaConf.to_container(cfg, resolve=True), secret_values(os.environ))
    if is_first():
        run.config.write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")
    return config


def record_lr(cfg: DictConfig, card: dict[str, Any], run: RunDirectory, lr: float, reason: str) -> None:
    """Put a rate that was found where a typed one would stand: ``config.yaml``, checkpoints, trackers, ``recipe.json``."""
    cfg.optimizer.lr = lr
    card["config"]["optimizer"]["lr"] = lr  # the loggers hold this same configuration
    write_config(cfg, run)
    if run.recipe.exists():
        record = json.loads(run.recipe.read_text(encoding="utf-8"))
        for decision in record["decisions"]:
            if decision["key"] == "optimizer.lr":
                decision |= {"value": lr, "reason": reason}
        write_json(run.recipe, record)


def lr_of(checkpoint: Path) -> float:
    """The rate that the run of a checkpoint has, so that a resumed run does not look for another."""
    lr: float = read_payload(checkpoint)["finetune"]["config"]["optimizer"]["lr"]
    return lr


def follow_recipe(
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
    for line in lines(cfg.recipe, facts, done):
        log.info("%s", line)
    if is_first():
        decisions = [decision._asdict() for decision in done]
        write_json(run.recipe, {"name": cfg.recipe, "facts": facts._asdict(), "decisions": decisions})
    decided = {entry.key: f"{cfg.recipe}: {entry.value}" for entry in done if entry.key == "freeze" and not entry.given}
    return resolved, {**choices, **decided}
