"""A greedy soup: the average of several runs' weights, as good as an ensemble sometimes, at the cost of one network.

From the best run downwards, each run's weights are added to the average and stay if the average does not get worse on
val. Runs must start from the same weights to lie in one basin; averages of networks trained from scratch are worthless
(and are then not kept). Running statistics of BatchNorm are averaged like weights. Wortsman et al. 2022,
arXiv:2203.05482.

Every ingredient must have been trained and validated on the same images, or val would judge pictures that one of them
has learned by heart.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.checkpoint import Checkpoint, read_checkpoint, read_payload, write_checkpoint
from finetune.errors import ConfigError
from finetune.leaderboard.runs import Run
from finetune.run_directory import RunDirectory

log = logging.getLogger(__name__)


class Soup(NamedTuple):
    """``value`` is the soup's monitor on val, ``best`` that of the best ingredient measured in the same way."""

    ingredients: tuple[Path, ...]
    value: float
    best: float
    figures: dict[str, float]
    state_dict: dict[str, Tensor]


def make_soup(runs: Sequence[Run], output: Path, *, higher_is_better: bool) -> Path | None:
    """Mix the finished runs' best checkpoints and write ``output`` if the soup is better than the best of them on val.

    Raises:
        ConfigError: fewer than two runs, or runs that do not fit together; every reason is given.
    """
    ordered = sorted(
        (run for run in runs if run.value is not None), key=lambda run: run.value or 0.0, reverse=higher_is_better
    )
    folders = [RunDirectory(run.directory) for run in ordered]
    checkpoints = [  # of a refitted run the weights that have not seen val, on which the soup is chosen
        read_checkpoint(folder.before_refit if folder.before_refit.exists() else folder.best) for folder in folders
    ]
    check_compatible(ordered, checkpoints)
    metric = ordered[0].monitor.removeprefix("val/")
    evaluate = _Validation(checkpoints[0], ordered[0].directory / "split.csv")
    soup = greedy(checkpoints, evaluate, metric, higher_is_better=higher_is_better)
    names = ", ".join(path.parent.parent.name for path in soup.ingredients)
    better = soup.value > soup.best if higher_is_better else soup.value < soup.best
    log.info(
        "soup      %d of %d runs: val/%s %.4f, the best single run %.4f",
        len(soup.ingredients),
        len(ordered),
        metric,
        soup.value,
        soup.best,
    )
    if len(soup.ingredients) < 2 or not better:
        log.info("soup      is not better than the best single run and is not kept")
        return None
    _write(soup, checkpoints[0], metric, output)
    log.info("soup      of %s: %s", names, output)
    return output


def greedy(checkpoints: Sequence[Checkpoint], evaluate: Any, metric: str, *, higher_is_better: bool) -> Soup:
    """Add each checkpoint to the average unless ``evaluate(state_dict)[metric]`` gets worse; the best comes first."""
    kept = [checkpoints[0]]
    state = checkpoints[0].state_dict
    figures = evaluate(state)
    best = value = figures[metric]
    for candidate in checkpoints[1:]:
        mixed = average([member.state_dict for member in [*kept, candidate]])
        found = evaluate(mixed)
        if found[metric] >= value if higher_is_better else found[metric] <= value:
            kept, state, figures, value = [*kept, candidate], mixed, found, found[metric]
    return Soup(tuple(member.path for member in kept), value, best, figures, state)


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every floating-point tensor, in float64; counters are those of the first."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def check_compatible(runs: Sequence[Run], checkpoints: Sequence[Checkpoint]) -> None:
    """Raise ``ConfigError`` unless the checkpoints have the same classes, tensors, preprocessing and images."""
    if len(runs) < 2:
        raise ConfigError(f"soup=greedy mixes at least two finished runs; there is {len(runs)}")
    first = checkpoints[0]
    problems: list[str] = []
    for run, checkpoint in zip(runs[1:], checkpoints[1:]):
        differing = [
            name
            for name in {*first.state_dict, *checkpoint.state_dict}
            if getattr(first.state_dict.get(name), "shape", None)
            != getattr(checkpoint.state_dict.get(name), "shape", None)
        ]
        if checkpoint.classes != first.classes:
            problems.append(f"{run.directory} has other classes")
        elif differing:
            problems.append(f"{run.directory} is another network ({len(differing)} tensors differ)")
        elif checkpoint.preprocessing != first.preprocessing:
            problems.append(f"{run.directory} sees images of another size or normalisation")
        elif _split_of(run) != _split_of(runs[0]):
            problems.append(f"{run.directory} was trained on other images; give every run the same data.split_file=")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems[:10])
        raise ConfigError(f"soup=greedy: {len(problems)} of {len(runs)} runs do not fit {runs[0].directory}:\n{lines}")


def _split_of(run: Run) -> str:
    """A digest of which image is in which split."""
    with (run.directory / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted((row["path"], row["split"], row.get("sha256", "")) for row in csv.DictReader(file))
    return hashlib.sha256(repr(rows).encode()).hexdigest()


class _Validation:
    """Figures of a state dict on the run's own val split, in float32."""

    def __init__(self, checkpoint: Checkpoint, split_file: Path) -> None:
        from finetune import build

        node = {**checkpoint.config["data"], "split_file": str(split_file), "fold": None, "folds": None}
        self._checkpoint = checkpoint
        source = build.part(node, checkpoint.config["seed"])
        self._table = source.load(checkpoint.classes)
        self._rows = self._table.rows("val")
        self._batch_size = source.options.images_per_step

    def __call__(self, state_dict: dict[str, Tensor]) -> dict[str, float]:
        from finetune.build import network_from_checkpoint
        from finetune.classifier import Classifier
        from finetune.exporter.artefact import Description
        from finetune.measuring import measure
        from finetune.metrics.evaluation import evaluate
        from finetune.torch_runtime import TorchRuntime

        found = dataclasses.replace(self._checkpoint, state_dict=state_dict, temperature=1.0, thresholds=None)
        classifier = Classifier(TorchRuntime(network_from_checkpoint(found), Description.of(found), "auto"))
        measured = measure(classifier, self._table, self._rows, batch_size=self._batch_size)
        return evaluate(measured.predictions).metrics


def _write(soup: Soup, first: Checkpoint, metric: str, output: Path) -> None:
    """A checkpoint like any other; its card says what it was mixed from."""
    from finetune.checkpoint import PREFIX

    card = read_payload(first.path)["finetune"]
    card |= {
        "metrics": {"val": soup.figures},
        "temperature": 1.0,
        "monitor": {"name": f"val/{metric}", "value": soup.value, "epoch": -1},
        "soup": [str(path) for path in soup.ingredients],
    }
    payload = {"state_dict": {f"{PREFIX}{name}": value for name, value in soup.state_dict.items()}, "finetune": card}
    write_checkpoint(payload, output)
