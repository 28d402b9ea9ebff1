"""After the fit: the best weights, evaluated once on val and test, calibrated on val, recorded and reported.

Test images are seen here for the first time, and nothing is chosen by them.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from finetune.callback.checkpointing import Checkpointing
from finetune.checkpoint import PREFIX, read_payload, write_checkpoint
from finetune.data.dataset import ImageRows
from finetune.data.module import ImageData
from finetune.metrics.calibration import fit_temperature
from finetune.metrics.evaluation import Evaluation, evaluate
from finetune.metrics.multilabel import fit_thresholds
from finetune.metrics.predictions import Predictions
from finetune.metrics.probability import sigmoid
from finetune.model import ImageClassifier
from finetune.report.curves import Phase
from finetune.report.gradcam import gradcam
from finetune.report.subject import Image, Subject
from finetune.run_directory import RunDirectory, versions

log = logging.getLogger(__name__)
_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "map", "f1", "loss", "ece_calibrated")


def finish(
    model: ImageClassifier,
    data: ImageData,
    precision: str,
    checkpointing: Checkpointing,
    run: RunDirectory,
    report: Any,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Evaluate ``best.ckpt``, complete it with metrics and temperature, write ``result.json`` and the report.

    ``seconds`` holds what preparing and fitting took; gives the content of ``result.json``.
    """
    started = time.monotonic()
    payload = read_payload(run.best)
    weights = {name: value for name, value in payload["state_dict"].items() if name.startswith(PREFIX)}
    model.network.load_state_dict({name.removeprefix(PREFIX): value for name, value in weights.items()})

    epoch = int(checkpointing.best["epoch"])
    found = {split: score(model, data, split, precision, epoch) for split in ("val", "test")}
    predictions = calibrated({split: scores for split, scores in found.items() if scores is not None})
    evaluations = {split: evaluate(of_split) for split, of_split in predictions.items()}
    val = predictions["val"]
    figures = {split: evaluation.metrics for split, evaluation in evaluations.items()}
    thresholds = None if val.thresholds is None else list(val.thresholds)
    payload["finetune"] |= {"metrics": figures, "temperature": val.temperature, "thresholds": thresholds}
    write_checkpoint(payload, run.best)

    last = "test" if "test" in predictions else "val"
    report.write(run.root, _subject(model, data, predictions[last], evaluations[last], last, checkpointing.monitor))
    seconds = seconds | {"evaluate": time.monotonic() - started}
    content: dict[str, Any] = {
        "monitor": checkpointing.best,
        **figures,
        "intervals": {split: evaluation.to_dict()["intervals"] for split, evaluation in evaluations.items()},
        "temperature": val.temperature,
        "best_checkpoint": str(run.best.relative_to(run.root)),
        "classes": list(data.table.classes),
        "seconds": {name: round(value, 3) for name, value in (seconds | {"total": sum(seconds.values())}).items()},
    }
    run.write_result("completed", **content)
    _say_result(content, run)
    return {"status": "completed", **content}


def score(model: ImageClassifier, data: ImageData, split: str, precision: str, epoch: int) -> Predictions | None:
    """Plain scores of a split's readable images by the weights of ``epoch``, in the precision of the training.

    None where the split has no images.
    """
    rows = data.table.rows(split)
    if len(rows) == 0:
        return None
    model.eval()
    device = next(model.network.parameters()).device
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision.startswith("bf16"))
    logits: list[torch.Tensor] = []
    scored: list[torch.Tensor] = []
    with torch.inference_mode(), half:
        for batch in data.evaluation_loader(rows, lambda: epoch):
            if len(batch.indices):
                inputs = batch.inputs.to(device)
                logits_BK = model.from_stored(inputs, epoch) if batch.is_features else model(inputs)
                logits.append(logits_BK.float().cpu())
                scored.append(batch.indices)
    readable = torch.cat(scored).numpy()
    paths = tuple(data.table.relative(int(row)) for row in readable)
    return Predictions(paths, torch.cat(logits).numpy(), data.table.targets[readable], data.table.classes)


def calibrated(found: dict[str, Predictions]) -> dict[str, Predictions]:
    """Every split with the temperature (and, for multi-label, the thresholds) that fit val."""
    val = found["val"]
    temperature = fit_temperature(val.logits_NK, val.targets)
    thresholds = None
    if val.is_multilabel:
        thresholds = tuple(fit_thresholds(sigmoid(val.logits_NK, temperature=temperature), val.targets))
    return {
        split: Predictions(of.paths, of.logits_NK, of.targets, of.classes, temperature, thresholds)
        for split, of in found.items()
    }


def _subject(
    model: ImageClassifier, data: ImageData, predictions: Predictions, evaluation: Evaluation, split: str, monitor: str
) -> Subject:
    """What the report is about; images are read again when the page asks for them."""
    rows = {data.table.relative(int(row)): int(row) for row in data.table.rows(split)}
    images = ImageRows(data.table, data.preprocessing, None, data.seed)

    def read(position: int) -> Image:
        image_CHW = images[0, rows[predictions.paths[position]]].image_CHW
        assert image_CHW is not None, "it was read when it was scored"
        pixels: npt.NDArray[np.uint8] = image_CHW.permute(1, 2, 0).numpy()
        return pixels

    def maps(shown: list[Image], class_numbers: list[int]) -> npt.NDArray[np.float32] | None:
        device = next(model.network.parameters()).device
        images_BCHW = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).to(device)
        return gradcam(model.network, data.preprocessing.normalize(images_BCHW), class_numbers)

    phases = tuple(Phase(phase.start, phase.end, _label(phase.stages)) for phase in model.schedule.phases)
    return Subject(
        title=data.table.root.name,
        split=split,
        predictions=predictions,
        evaluation=evaluation,
        read=read,
        maps=maps,
        phases=phases,
        monitor=monitor,
        versions=versions(),
    )


def _label(stages: tuple[str, ...]) -> str:
    return ", ".join(stages) if len(stages) <= 3 else f"{stages[0]} ... {stages[-1]}"


def _say_result(content: dict[str, Any], run: RunDirectory) -> None:
    monitor = content["monitor"]
    log.info("best      %s %.4f in epoch %d", monitor["name"], monitor["value"], monitor["epoch"] + 1)
    for split in ("val", "test"):
        if split in content:
            named = "  ".join(f"{name} {content[split][name]:.4f}" for name in _SHOWN if name in content[split])
            log.info("%-9s %s", split, named)
    log.info("time      %.1f s", content["seconds"]["total"])
    log.info("run       %s", run.root)
    if run.report.exists():
        log.info("report    %s", run.report)
