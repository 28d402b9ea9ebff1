"""What a glance at the disk shows of a configuration's mistakes, so that they are reported with all the others.

The folder of images, checkpoints and weights files that are not there, a network that timm does not have, a monitor
that this kind of labels has no figure for. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from finetune.errors import CheckpointError, ConfigError, DataError, FinetuneError, WeightsError

MEASURED = ("val/accuracy", "val/balanced_accuracy", "val/loss", "val/macro_f1")
MEASURED_MULTILABEL = ("val/accuracy", "val/f1", "val/loss", "val/map")
TOP5 = "val/top5_accuracy"


def problems(verb: str, cfg: DictConfig, shipped: DictConfig) -> Iterator[FinetuneError]:
    """One error for everything that can be seen to be wrong; keys that are missing or of a wrong type are left alone.

    What stands in ``shipped`` is right as it is.
    """
    for key in ("ckpt", "compare", "resume"):
        value = cfg.get(key) if key in cfg and not OmegaConf.is_missing(cfg, key) else None
        if isinstance(value, str) and not (key == "resume" and value == "auto"):
            yield from _file_problems(key, value)
    if isinstance(cfg.get("data"), DictConfig):
        yield from _data_problems(verb, cfg.data)
    if verb == "train" and isinstance(cfg.get("data"), DictConfig):
        yield from monitor_problems(cfg.get("monitor"), multilabel=cfg.data.get("multilabel") is True)
        yield from _balance_problems(cfg)
    if isinstance(cfg.get("backbone"), DictConfig) and cfg.backbone != shipped.get("backbone"):
        yield from _backbone_problems(cfg.backbone)


def monitor_problems(monitor: Any, *, multilabel: bool, num_classes: int | None = None) -> Iterator[ConfigError]:
    """A monitor that validation does not measure; without ``num_classes``, top-5 accuracy may be measured."""
    measured = list(MEASURED_MULTILABEL if multilabel else MEASURED)
    if not multilabel and (num_classes is None or num_classes > 5):
        measured.append(TOP5)
    if monitor in measured:
        return
    if multilabel and monitor in (*MEASURED, TOP5):
        why = "with several labels per image"
        yield ConfigError(f"monitor={monitor} is not measured {why}; say monitor=val/map ({', '.join(measured)} are)")
    else:
        five = " (top-5 accuracy with more than five classes only)" if monitor == TOP5 else ""
        yield ConfigError(f"monitor={monitor} is not measured{five}; measured are {', '.join(measured)}")


def _balance_problems(cfg: DictConfig) -> Iterator[ConfigError]:
    """Logit adjustment beside another way to mend uneven classes: rare ones would count twice."""
    tau = OmegaConf.select(cfg, "loss.logit_adjustment")
    if isinstance(tau, int | float) and tau > 0:
        for key in ("loss.class_weights", "data.sampler"):
            if OmegaConf.select(cfg, key) == "balanced":
                yield ConfigError(
                    f"loss.logit_adjustment={tau:g} and {key}=balanced each mend uneven classes, and together count rare "
                    "ones twice; leave one out"
                )


def _file_problems(key: str, value: str) -> Iterator[FinetuneError]:
    if "://" in value or Path(value).expanduser().exists():
        return
    path = Path(value).expanduser()
    inside = path.parent / "checkpoints" / path.name
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    if inside.exists() or near:
        hint = f"did you mean {inside if inside.exists() else path.with_name(near[0])}?"
    elif key == "resume":
        hint = "auto, or the last.ckpt of a run is expected"
    else:
        hint = "a checkpoint of finetune.train or an artefact of finetune.export is expected"
    yield CheckpointError(f"{key}={value} is not there; {hint}")


def _data_problems(verb: str, node: DictConfig) -> Iterator[FinetuneError]:
    """The folder as training needs it; for the other verbs, only that it is there."""
    from finetune.data import folder

    yield from _option_problems(node)
    if verb == "evaluate" and node.get("batch_size") == "auto":
        yield ConfigError("data.batch_size=auto is found by training; here a number is expected, data.batch_size=32")
    path = node.get("path") if not OmegaConf.is_missing(node, "path") else None
    if not isinstance(path, str):
        return

    if verb == "train" and node.get("_target_") == "finetune.data.folder.FolderData":
        texts = folder.problems(path, class_from="leaf" if node.get("class_from") == "leaf" else "top")
    else:
        texts = [folder.root_problem(path, Path(path).expanduser())]
    yield from (DataError(text) for text in texts if text)


def _option_problems(node: DictConfig) -> Iterator[FinetuneError]:
    """What the options of loading and splitting say of their own values."""
    from finetune.data.options import LoaderOptions, SplitOptions

    for kind in (LoaderOptions, SplitOptions):
        values: dict[str, Any] = {field.name: node.get(field.name) for field in dataclasses.fields(kind)}
        if {*values} - {"seed"} <= {*node}:
            with contextlib.suppress(TypeError):  # a value of a wrong type, which the signature names
                yield from kind(**values).problems()


def _backbone_problems(node: DictConfig) -> Iterator[FinetuneError]:
    from finetune.backbone import known

    name, weights = (None if OmegaConf.is_missing(node, key) else node.get(key) for key in ("name", "weights"))
    if isinstance(name, str) and (problem := known.name_problem(name)):
        yield ConfigError(problem)
    if isinstance(weights, str) and (problem := known.weights_problem(weights)):
        yield WeightsError(problem)
