"""Which weights are kept: the probe, the fine-tuned ones, or a point between them, by the monitor on val."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from finetune.callback.checkpointing import Checkpointing
from finetune.candidates import Candidate, Floats, HeldOut, choose, scores, why
from finetune.checkpoint import PREFIX, read_payload
from finetune.data.module import ImageData
from finetune.interpolation import COEFFICIENTS, Weights, place
from finetune.metrics.predictions import Predictions
from finetune.metrics.summary import result as figures_of
from finetune.model import ImageClassifier
from finetune.run_directory import RunDirectory

log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """The weights that were kept: their monitor and what they were compared with, in the precision of the training."""

    monitor: dict[str, Any]
    candidates: list[Candidate]
    reasons: tuple[str, ...]


def choose_weights(
    model: ImageClassifier, data: ImageData, precision: str, checkpointing: Checkpointing, run: RunDirectory
) -> Choice:
    """Put the network at the best of probe, fine-tuned weights and the points between them, by the monitor on val."""
    probe, tuned = (_weights(path) if path.exists() else None for path in (run.probe, run.best))
    ends = [weights for weights in (probe, tuned) if weights is not None]
    low, high = ends[0], ends[-1]
    name = checkpointing.monitor.removeprefix("val/")

    def at(coefficient: float) -> tuple[float, float, Floats]:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=precision.startswith("bf16")):
            place(model.network, low, high, coefficient, data.training_images(model.device))
        found = score(model, data, "val", precision)
        assert found is not None, "a run without validation images is refused at its start"
        value = figures_of(found.logits_NK, found.targets)[name]
        return coefficient, value, scores(found.logits_NK, found.targets, name)

    if len(ends) == 2:
        known = read_payload(run.probe)["finetune"].get("held_out")
        held_out = None if known is None else HeldOut(**known)
        best, candidates = choose(
            [at(coefficient) for coefficient in COEFFICIENTS],
            held_out,
            larger_is_better=checkpointing.mode == "max",
        )
        reasons = why(best, candidates, held_out, len(data.table.rows("val")))
    else:
        best = Candidate(0.0 if tuned is None else 1.0, at(1.0)[1])
        candidates, reasons = [best], {}
    for word, reason in reasons.items():
        log.info("%-9s %s", word, reason)
    if len(ends) == 2:
        place(model.network, low, high, best.coefficient, data.training_images(model.device))
    epoch = None if best.coefficient == 0 else checkpointing.best["epoch"]
    monitor = {
        "name": checkpointing.monitor,
        "value": best.value,
        "epoch": epoch,
        "coefficient": best.coefficient,
    }
    return Choice(monitor, candidates, tuple(f"{word.capitalize()} {reason}." for word, reason in reasons.items()))


def score(model: ImageClassifier, data: ImageData, split: str, precision: str) -> Predictions | None:
    """Plain scores of a split's readable images in ``precision``; None where there are no images.

    A backbone that was never trained has its features stored in float32: they stand in for the images.
    """
    rows = data.table.rows(split)
    if len(rows) == 0:
        return None
    model.eval()
    device = next(model.network.parameters()).device
    features = model.reuse.pooled(rows) if model.reuse is not None else None
    loader = data.evaluation_loader(rows, features)
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision.startswith("bf16"))
    logits: list[torch.Tensor] = []
    scored: list[torch.Tensor] = []
    with torch.inference_mode():
        for batch in loader:
            if len(batch.indices) == 0:
                continue
            inputs = batch.inputs.to(device)
            if batch.is_features:
                logits.append(model.network.head(inputs.float()).cpu())
            else:
                with half:
                    logits.append(model(inputs).float().cpu())
            scored.append(batch.indices)
    readable = torch.cat(scored).numpy()
    paths = tuple(data.table.relative(int(row)) for row in readable)
    return Predictions(paths, torch.cat(logits).numpy(), data.table.targets[readable], data.table.classes)


def put_back(run: RunDirectory) -> None:
    """Before a run goes on, ``best.ckpt`` is its own fine-tuned weights again, or is gone where it has none."""
    if run.tuned.exists():
        run.tuned.replace(run.best)
    elif run.best.exists():
        entry = read_payload(run.best)["finetune"]
        if "refit" in entry or entry["monitor"].get("coefficient", 1) != 1:  # of a probe alone, which is solved again
            run.best.unlink()


def _weights(path: Path) -> Weights:
    weights = read_payload(path)["state_dict"]
    return {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
