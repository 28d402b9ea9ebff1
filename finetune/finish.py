"""After the fit: the best weights, evaluated once on val and test, calibrated on val, recorded and reported."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import torch
from omegaconf import DictConfig

from finetune.callback.checkpointing import Checkpointing
from finetune.checkpoint import PREFIX, read_payload, write_checkpoint
from finetune.data.module import ImageData
from finetune.metrics.calibration import fit_temperature
from finetune.metrics.summary import result as figures_of
from finetune.model import ImageClassifier
from finetune.run_directory import RunDirectory

log = logging.getLogger(__name__)


def finish(
    model: ImageClassifier,
    data: ImageData,
    trainer: lightning.Trainer,
    run: RunDirectory,
    cfg: DictConfig,
    seconds: dict[str, float],
    started: float,
) -> dict[str, Any]:
    """Evaluate ``best.ckpt``, complete it with metrics and temperature, write ``result.json``; gives its content."""
    evaluated = time.monotonic()
    checkpointing = next(callback for callback in trainer.callbacks if isinstance(callback, Checkpointing))
    payload = read_payload(run.best)
    weights = {name: value for name, value in payload["state_dict"].items() if name.startswith(PREFIX)}
    model.network.load_state_dict({name.removeprefix(PREFIX): value for name, value in weights.items()})
    table = data.table
    figures: dict[str, dict[str, float]] = {}
    temperature = 1.0
    for split in ("val", "test"):
        rows = table.rows(split)
        if len(rows) == 0:
            continue
        logits_NK, scored = logits(model, data, rows, str(trainer.precision))
        targets = table.targets[scored]
        if split == "val":
            temperature = fit_temperature(logits_NK, targets)
        figures[split] = figures_of(logits_NK, targets, temperature=temperature)
    payload["finetune"] |= {"metrics": figures, "temperature": temperature}
    write_checkpoint(payload, run.best)
    seconds |= {"evaluate": time.monotonic() - evaluated, "total": time.monotonic() - started}
    content: dict[str, Any] = {
        "monitor": checkpointing.best,
        **figures,
        "temperature": temperature,
        "best_checkpoint": str(run.best.relative_to(run.root)),
        "classes": list(table.classes),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    run.write_result("completed", **content)
    _say_result(content, run)
    return {"status": "completed", **content}


def logits(
    model: ImageClassifier, data: ImageData, rows: npt.NDArray[np.int64], precision: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Logits N K of ``rows`` in the precision of the training, and the rows that could be read, in order."""
    model.eval()
    device = next(model.network.parameters()).device
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision.startswith("bf16"))
    found: list[torch.Tensor] = []
    scored: list[torch.Tensor] = []
    with torch.inference_mode(), half:
        for batch in data.evaluation_loader(rows):
            if len(batch.indices):
                found.append(model(batch.inputs.to(device)).float().cpu())
                scored.append(batch.indices)
    return torch.cat(found).numpy(), torch.cat(scored).numpy()


def _say_result(content: dict[str, Any], run: RunDirectory) -> None:
    monitor = content["monitor"]
    log.info("best      %s %.4f in epoch %d", monitor["name"], monitor["value"], monitor["epoch"] + 1)
    for split in ("val", "test"):
        if split in content:
            shown = ("accuracy", "balanced_accuracy", "macro_f1", "map", "f1", "loss")
            named = "  ".join(f"{name} {content[split][name]:.4f}" for name in shown if name in content[split])
            log.info("%-9s %s", split, named)
    log.info("time      %.1f s", content["seconds"]["total"])
    log.info("run       %s", run.root)
