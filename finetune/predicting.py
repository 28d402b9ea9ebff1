"""One prediction job: open the model, list the images, run them through in batches, write rows as they come."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import NamedTuple, get_args

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from finetune import build
from finetune.classifier import Classifier
from finetune.errors import ConfigError, FinetuneError, ImageError, combine
from finetune.exporter.artefact import Description
from finetune.inputs import files_of
from finetune.metrics.predictions import Predictions
from finetune.predictions_file import Format, PredictionsFile
from finetune.views import Tta

log = logging.getLogger(__name__)
_SHOWN = 10


class Result(NamedTuple):
    """The file that was written, and how many images it has."""

    path: Path
    images: int


def predict(cfg: DictConfig, directory: Path, typed: tuple[str, ...]) -> Result:
    """Predict as configured into ``directory``; ``typed`` are the keys that the user gave.

    Raises:
        FinetuneError: images could not be read; everything else was predicted and written. Exit code 1.
    """
    check(cfg, typed)
    paths = files_of([str(text) for text in cfg.input] if OmegaConf.is_list(cfg.input) else str(cfg.input))
    classifier = open_classifier(cfg)
    unreadable: list[ImageError] = []
    with (
        PredictionsFile(directory, classifier.classes, cfg.format) as file,
        tqdm(total=len(paths), unit="image", disable=not sys.stderr.isatty()) as bar,
    ):
        options = {"batch_size": cfg.batch_size, "num_workers": cfg.num_workers, "tta": cfg.tta}
        for chunk in classifier.scores(paths, **options):
            predictions = classifier.predictions([paths[row] for row in chunk.rows], chunk.logits_BK)
            file.write(predictions)
            if len(paths) <= _SHOWN:
                _say(predictions)
            unreadable.extend(chunk.unreadable)
            bar.update(len(chunk.rows) + len(chunk.unreadable))
    log.info("%d images  %s", len(paths) - len(unreadable), file.path)
    if unreadable:
        raise skipped(unreadable, len(paths))
    return Result(file.path, len(paths))


def check(cfg: DictConfig, typed: tuple[str, ...]) -> None:
    """Raise one ``ConfigError`` for everything that is out of range or contradicts itself."""
    problems: list[FinetuneError] = []
    for key, options in (("format", get_args(Format)), ("tta", get_args(Tta))):
        if cfg.get(key, options[0]) not in options:
            problems.append(ConfigError(f"{key}={cfg[key]} is unknown; expected one of {', '.join(options)}"))
    if cfg.batch_size < 1:
        problems.append(ConfigError(f"batch_size={cfg.batch_size}: at least 1 is expected"))
    if cfg.num_workers is not None and (not isinstance(cfg.num_workers, int) or cfg.num_workers < 1):
        problems.append(ConfigError(f"num_workers={cfg.num_workers}: at least 1 thread is expected, or null"))
    idle = [key for key in typed if key == "image_size" or key.split(".")[0] == "backbone"]
    if cfg.ckpt is not None and idle:
        problems.append(ConfigError(f"ckpt={cfg.ckpt} already says the network; leave out {', '.join(idle)}"))
    if problems:
        raise combine(problems)


def open_classifier(cfg: DictConfig) -> Classifier:
    """The model of ``ckpt``, or the backbone with the classes it was pretrained on."""
    if cfg.ckpt is not None:
        return Classifier.load(str(cfg.ckpt), device=cfg.device, cache=build.feature_cache(cfg))
    from finetune.backbone.imagenet import create_classifier
    from finetune.torch_runtime import TorchRuntime

    pretrained = create_classifier(cfg.image_size, name=cfg.backbone.name, weights=cfg.backbone.weights)
    log.info("no ckpt   %s with its own %d classes, %s", cfg.backbone.name, len(pretrained.classes), pretrained.weights)
    description = Description("multiclass", distinct(pretrained.classes), pretrained.preprocessing)
    return Classifier(TorchRuntime(pretrained.module, description, cfg.device))


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names that differ: ImageNet has two cranes and two maillots, and a column needs one name."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)


def skipped(unreadable: list[ImageError], total: int) -> FinetuneError:
    """The error at the end of a job that left images out."""
    lines = "\n".join(f"  {error}" for error in unreadable[:20])
    more = f"\n  and {len(unreadable) - 20} more" if len(unreadable) > 20 else ""
    return FinetuneError(f"{len(unreadable)} of {total} images could not be read and were left out:\n{lines}{more}")


def _say(predictions: Predictions) -> None:
    for row, path in enumerate(predictions.paths):
        log.info("%s  %s %.1f%%", path, predictions.prediction(row), 100 * predictions.confidence_N[row])
