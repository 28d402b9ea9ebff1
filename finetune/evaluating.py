"""One evaluation job: open the model, find the images, measure, write result.json, predictions.csv and report.html."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from finetune import build
from finetune.classifier import Classifier
from finetune.data.table import SPLITS, Table
from finetune.errors import ConfigError, DataError, FinetuneError, combine
from finetune.measuring import Measured, gradcam_maps, measure, reader
from finetune.metrics.evaluation import Comparison, Evaluation, compare
from finetune.metrics.evaluation import evaluate as examine
from finetune.opening import training_config
from finetune.predicting import skipped
from finetune.predictions_file import PredictionsFile
from finetune.report.subject import Subject
from finetune.run_directory import RunDirectory, versions
from finetune.torch_runtime import TorchRuntime
from finetune.views import Tta

log = logging.getLogger(__name__)
Result = dict[str, Any]
_OF_THE_SPLIT = ("val_fraction", "test_fraction", "split_by", "split_file", "fold", "folds", "class_from")


def evaluate(cfg: DictConfig, directory: Path, typed: tuple[str, ...]) -> Result:
    """Evaluate as configured into ``directory``; ``typed`` are the keys that the user gave.

    Raises:
        FinetuneError: images could not be read; everything else was measured and written. Exit code 1.
    """
    started = time.monotonic()
    check(cfg)
    run = RunDirectory(directory)
    classifier = Classifier.load(str(cfg.ckpt), device=cfg.device, cache=build.feature_cache(cfg))
    table = load_table(cfg, classifier, typed)
    rows = rows_of(table, cfg)
    measured = _measure(cfg, classifier, table, rows, "images")
    evaluation = examine(measured.predictions)
    comparison = _compare(cfg, measured, table, rows) if cfg.compare is not None else None
    with PredictionsFile(directory, classifier.classes) as file:
        file.write(measured.predictions)
    content = {
        cfg.data.split: evaluation.metrics,
        "split": cfg.data.split,
        "classes": list(classifier.classes),
        "temperature": measured.predictions.temperature,
        "checkpoint": str(cfg.ckpt),
        "data": str(cfg.data.path),
        "tta": cfg.tta,
        "details": evaluation.to_dict(),
        "comparison": None if comparison is None else {"with": str(cfg.compare), **comparison.to_dict()},
        "unreadable": [str(error) for error in measured.unreadable],
    }
    page = _write_page(cfg, run, classifier, table, measured, evaluation, comparison)
    content["seconds"] = {"total": round(time.monotonic() - started, 3)}
    run.write_result("completed", **content)
    say(evaluation, comparison, cfg)
    if _is_refitted_on(cfg):
        log.warning(
            "refit     the model was trained on val as well: these figures say nothing of new images; before_refit.ckpt, "
            "beside it, has not seen val"
        )
    log.info("written   %s", ", ".join(str(path) for path in (run.result, file.path, page) if path))
    if measured.unreadable:
        raise skipped(list(measured.unreadable), len(rows))
    return content


def check(cfg: DictConfig) -> None:
    """Raise one ``ConfigError`` for every value that is out of range."""
    problems: list[FinetuneError] = []
    for key, value, options in (("data.split", cfg.data.split, (*SPLITS, "all")), ("tta", cfg.tta, get_args(Tta))):
        if value not in options:
            problems.append(ConfigError(f"{key}={value} is unknown; expected one of {', '.join(options)}"))
    if problems:
        raise combine(problems)


def load_table(cfg: DictConfig, classifier: Classifier, typed: tuple[str, ...]) -> Table:
    """The data set with the model's classes, split as in training wherever the user says nothing else."""
    node: dict[str, Any] = OmegaConf.to_container(cfg.data, resolve=True)  # type: ignore[assignment]
    node.pop("split")
    config = training_config(str(cfg.ckpt))
    trained = config.get("data", {})
    said = any(f"data.{key}" in typed for key in _OF_THE_SPLIT)
    if not said and trained.get("_target_") == node["_target_"]:
        node |= {key: trained[key] for key in _OF_THE_SPLIT if key in trained and key in node}
        split_file = Path(str(cfg.ckpt)).parent.parent / "split.csv"
        if split_file.is_file() and _same_folder(trained.get("path"), node["path"]):
            node |= {"split_file": str(split_file), "fold": None, "folds": None}
    elif not config and not said:
        log.info("split     this artefact does not say how its run split the images; the default rule is used")
    table: Table = build.part(node, config.get("seed", 42)).load(classifier.classes)
    task = classifier.description.task
    if table.task != task:
        hint = "data=csv data.multilabel=true" if task == "multilabel" else "one class per image"
        raise DataError(
            f"data.path={cfg.data.path} holds {table.task} labels and ckpt={cfg.ckpt} is {task}; give {hint}"
        )
    return table


def rows_of(table: Table, cfg: DictConfig) -> npt.NDArray[np.int64]:
    """Rows of the split. Raises ``DataError`` with the splits that there are when it is empty."""
    rows = table.rows(cfg.data.split)
    if len(rows) == 0:
        there = ", ".join(f"{name} ({len(table.rows(name))})" for name in SPLITS if len(table.rows(name)))
        raise DataError(
            f"data.path={cfg.data.path} has no {cfg.data.split} images; it has {there or 'none at all'}: "
            "say data.split=NAME, or data.split=all for every image"
        )
    return rows


def _measure(
    cfg: DictConfig, classifier: Classifier, table: Table, rows: npt.NDArray[np.int64], title: str
) -> Measured:
    with tqdm(total=len(rows), unit="image", desc=title, disable=not sys.stderr.isatty()) as bar:
        options = {"batch_size": cfg.data.batch_size, "num_workers": cfg.data.num_workers or None, "tta": cfg.tta}
        return measure(classifier, table, rows, advance=bar.update, **options)


def _compare(cfg: DictConfig, measured: Measured, table: Table, rows: npt.NDArray[np.int64]) -> Comparison:
    """The second model on the same images; its classes may stand in another order, but must be the same."""
    other = Classifier.load(str(cfg.compare), device=cfg.device, cache=build.feature_cache(cfg))
    first = measured.predictions
    if set(other.classes) != set(first.classes):
        differing = sorted(set(other.classes) ^ set(first.classes))
        raise ConfigError(
            f"compare={cfg.compare} has other classes than ckpt={cfg.ckpt} ({', '.join(differing[:5])}, ...); "
            "two models are compared on the same classes"
        )
    in_order = [first.classes.index(name) for name in other.classes]
    if table.task == "multilabel":
        targets = table.targets[:, in_order]
    else:
        targets = np.where(table.targets < 0, -1, np.argsort(in_order)[table.targets])
    second = _measure(cfg, other, table.replace(targets=targets, classes=other.classes), rows, "compare").predictions
    if second.paths != first.paths:
        raise DataError(f"compare={cfg.compare} could not read the same images")
    return compare(first, second)


def _write_page(
    cfg: DictConfig,
    run: RunDirectory,
    classifier: Classifier,
    table: Table,
    measured: Measured,
    evaluation: Evaluation,
    comparison: Comparison | None,
) -> Path | None:
    runtime, predictions = classifier.runtime, measured.predictions
    preprocessing = classifier.description.preprocessing
    subject = Subject(
        title=f"{Path(str(cfg.ckpt)).name} on {Path(str(cfg.data.path)).resolve().name}",
        split=cfg.data.split,
        predictions=predictions,
        evaluation=evaluation,
        read=reader(classifier, table, predictions),
        maps=gradcam_maps(runtime.network, preprocessing) if isinstance(runtime, TorchRuntime) else None,
        comparison=comparison,
        other_name=str(cfg.compare or ""),
        unreadable=tuple(str(error) for error in measured.unreadable),
        command=f"python -m finetune.evaluate ckpt={cfg.ckpt} data.path={cfg.data.path} data.split={cfg.data.split}",
        trained_on=cfg.data.split in ("train", "all") or _is_refitted_on(cfg),
        versions=versions(),
    )
    written: Path | None = build.part(cfg.report).write(run.root, subject)
    return written


def say(evaluation: Evaluation, comparison: Comparison | None, cfg: DictConfig) -> None:
    """The headline on the terminal."""
    log.info("images    %d of the %s split", evaluation.num_images, cfg.data.split)
    for name, value in evaluation.metrics.items():
        interval = evaluation.intervals.get(name)
        log.info("%-22s %.4f%s", name, value, f"  [{interval.low:.4f}, {interval.high:.4f}]" if interval else "")
    if comparison is not None:
        log.info("%-22s %+.4f, McNemar p = %.3g", "difference", comparison.difference, comparison.test.p_value)


def _is_refitted_on(cfg: DictConfig) -> bool:
    """Whether the split is val and the model's run trained on it in the end (``refit=true``)."""
    return cfg.data.split == "val" and training_config(str(cfg.ckpt)).get("refit") is True


def _same_folder(first: Any, second: Any) -> bool:
    return first is not None and Path(str(first)).expanduser().resolve() == Path(str(second)).expanduser().resolve()
