"""After the fit: the best weights, evaluated once on val and test, calibrated on val, recorded and reported.

Test images are seen here for the first time, and nothing is chosen by them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from finetune import build
from finetune.assembling import Parts
from finetune.checkpoint import weights_payload, write_checkpoint
from finetune.choosing import Choice, choose_weights, score
from finetune.data.dataset import ImageRows
from finetune.data.module import ImageData
from finetune.metrics.calibration import fit_temperature
from finetune.metrics.evaluation import Evaluation, evaluate
from finetune.metrics.multilabel import fit_thresholds
from finetune.metrics.predictions import Predictions
from finetune.metrics.probability import sigmoid
from finetune.model import ImageClassifier
from finetune.predictions_file import VAL_PREDICTIONS, PredictionsFile
from finetune.report.curves import Phase
from finetune.report.gradcam import gradcam
from finetune.report.subject import Image, Subject
from finetune.run_directory import RunDirectory, versions
from finetune.trainer import precision_of

log = logging.getLogger(__name__)
_EXACT = "32-true"
"""Final figures are those of the model as it will be used: ``evaluate``, ``predict`` and exports compute in float32."""
_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "map", "f1", "loss", "ece_calibrated")


def finish(
    parts: Parts,
    run: RunDirectory,
    seconds: dict[str, float],
    first_step_s: float | None = None,
    again: Callable[[dict[str, Any]], Refitted] | None = None,
) -> dict[str, Any]:
    """Choose the weights on val, evaluate them, complete ``best.ckpt``, write ``result.json`` and the report.

    ``again`` trains what was chosen (the monitor's epoch and coefficient) once more, on train and val: its weights are then
    ``best.ckpt`` and make the test figures, and those that val has judged stay in ``before_refit.ckpt``. Fine-tuned weights
    that are not ``best.ckpt`` in the end are ``tuned.ckpt``, so that a resumed run begins from them.

    ``seconds`` holds what preparing and fitting took, ``first_step_s`` when the first step was done, counted from the
    process's start; None when there was none. Gives the content of ``result.json``.
    """
    started = time.monotonic()
    model, data, checkpointing = parts.model, parts.data, parts.interruption.checkpointing
    choice = choose_weights(model, data, precision_of(parts.cfg), checkpointing, run)
    found, refitted = _judge(model, data, choice, run, again)
    val = found.predictions["val"]
    with PredictionsFile(run.root, val.classes, name=VAL_PREDICTIONS) as file:
        file.write(val.in_path_order())

    last = "test" if "test" in found.predictions else "val"
    judged = (model, data) if refitted is None or last == "val" else (refitted.model, refitted.data)
    subject = _subject(*judged, found.predictions[last], found.evaluations[last], last, checkpointing.monitor)
    kept = (*choice.reasons, *([] if refitted is None else [refitted.sentence]))
    build.part(parts.cfg.report).write(run.root, replace(subject, kept=kept))
    seconds = seconds | {"evaluate": time.monotonic() - started}
    if refitted is not None:
        seconds |= {"refit": refitted.seconds, "evaluate": seconds["evaluate"] - refitted.seconds}
    seconds |= {"total": sum(seconds.values())} | ({} if first_step_s is None else {"first_step": first_step_s})
    content: dict[str, Any] = {
        "monitor": found.monitor,
        **found.figures,
        "intervals": {split: evaluation.to_dict()["intervals"] for split, evaluation in found.evaluations.items()},
        "candidates": [candidate._asdict() for candidate in choice.candidates],
        "kept": list(kept),
        **({} if refitted is None else {"refit": refitted.record}),
        "temperature": val.temperature,
        "best_checkpoint": str(run.best.relative_to(run.root)),
        "classes": list(data.table.classes),
        "learning_rate": model.optimizer_part.lr,
        "batch_size": {"step": data.options.images_per_step, "at_once": data.images_at_once},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    run.write_result("completed", **content)
    _say_result(content, run)
    return {"status": "completed", **content}


class Refitted(NamedTuple):
    """A network trained on train and val together, with its data, what ``result.json`` says of it, and its time."""

    model: ImageClassifier
    data: ImageData
    record: dict[str, Any]
    sentence: str
    seconds: float


class Measured(NamedTuple):
    """Calibrated predictions and figures by split; the monitor is in float32 like they are."""

    predictions: dict[str, Predictions]
    evaluations: dict[str, Evaluation]
    monitor: dict[str, Any]

    @property
    def figures(self) -> dict[str, dict[str, float]]:
        """Metrics by split."""
        return {split: evaluation.metrics for split, evaluation in self.evaluations.items()}


def _judge(
    model: ImageClassifier,
    data: ImageData,
    choice: Choice,
    run: RunDirectory,
    again: Callable[[dict[str, Any]], Refitted] | None,
) -> tuple[Measured, Refitted | None]:
    """The chosen weights, or those that were trained ``again``, measured and written as ``best.ckpt``."""
    on_val = score(model, data, "val", _EXACT)
    assert on_val is not None, "a run without validation images is refused at its start"
    if again is None:
        found = _measure(on_val, score(model, data, "test", _EXACT), choice)
        is_tuned = choice.monitor["coefficient"] == 1
        write_checkpoint(_complete(model, found), run.best, keep=None if is_tuned else run.tuned)
        return found, None
    payload = _complete(model, _measure(on_val, None, choice))
    payload["finetune"]["config"] = {**payload["finetune"]["config"], "refit": False}  # of these weights it is true
    write_checkpoint(payload, run.before_refit)
    refitted = again(choice.monitor)
    found = _measure(on_val, score(refitted.model, refitted.data, "test", _EXACT), choice)
    payload = _complete(refitted.model, found)
    payload["finetune"]["refit"] = refitted.record
    write_checkpoint(payload, run.best, keep=run.tuned)
    return found, refitted


def _measure(on_val: Predictions, on_test: Predictions | None, choice: Choice) -> Measured:
    predictions = calibrated({"val": on_val} if on_test is None else {"val": on_val, "test": on_test})
    evaluations = {split: evaluate(of_split) for split, of_split in predictions.items()}
    value = evaluations["val"].metrics[choice.monitor["name"].removeprefix("val/")]
    return Measured(predictions, evaluations, choice.monitor | {"value": value})


def _complete(model: ImageClassifier, found: Measured) -> dict[str, Any]:
    """A checkpoint's content with what was measured."""
    val = found.predictions["val"]
    payload = weights_payload(model.card, model.network)
    payload["finetune"] |= {
        "metrics": found.figures,
        "temperature": val.temperature,
        "thresholds": None if val.thresholds is None else list(val.thresholds),
        "monitor": found.monitor,
    }
    return payload


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
        image_HWC = images[0, rows[predictions.paths[position]]].image_HWC
        assert image_HWC is not None, "it was read when it was scored"
        pixels: npt.NDArray[np.uint8] = image_HWC.numpy()
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
    when = "of the probe" if monitor["epoch"] is None else f"in epoch {monitor['epoch'] + 1}"
    log.info("best      %s %.4f %s", monitor["name"], monitor["value"], when)
    for split in ("val", "test"):
        if split in content:
            named = "  ".join(f"{name} {content[split][name]:.4f}" for name in _SHOWN if name in content[split])
            log.info("%-9s %s", split, named)
    if "refit" in content:
        log.info("refit     best.ckpt has seen val; the val figures are those of before_refit.ckpt")
    step_s = content["seconds"].get("first_step")
    when = "" if step_s is None else f", first step {step_s:.1f} s after the start of the process"
    log.info("time      %.1f s%s", content["seconds"]["total"], when)
    log.info("run       %s", run.root)
    if run.report.exists():
        log.info("report    %s", run.report)
