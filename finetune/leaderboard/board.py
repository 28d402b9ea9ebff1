"""The leaderboard: one row per configuration, best first, and the effect of every key that was varied."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.leaderboard.overrides import typed
from finetune.leaderboard.runs import REPLICATES, Run, varying
from finetune.leaderboard.statistics import (
    Comparison,
    Estimate,
    compare,
    estimate,
    rank_correlation,
    variance_explained,
)

_FEW_VALUES = 8


class Row(NamedTuple):
    """One configuration; ``values`` are the varied keys, ``runs`` its repetitions, ``test`` the means on test."""

    values: dict[str, str]
    runs: tuple[Run, ...]
    monitor: Estimate
    metrics: dict[str, float]
    seconds: float

    @property
    def best_run(self) -> Run:
        """The repetition whose checkpoint to take; ties go to the first."""
        return self.runs[0]


class Effect(NamedTuple):
    """What one key did, all others together: mean and count per value, and the share of the variance between values."""

    key: str
    means: dict[str, tuple[float, int]]
    variance_explained: float
    rank_correlation: float | None
    """Of the value and the monitor, where the values are numbers."""


class Board(NamedTuple):
    """Everything that a leaderboard shows; ``unfinished`` are runs without a value."""

    monitor: str
    higher_is_better: bool
    keys: tuple[str, ...]
    rows: tuple[Row, ...]
    effects: tuple[Effect, ...]
    comparison: Comparison | None
    unfinished: tuple[Run, ...]
    seconds: float


def build_board(runs: Sequence[Run]) -> Board:
    """Rank the configurations of ``runs`` by the mean of the monitor."""
    finished = [run for run in runs if run.value is not None]
    monitor = next(run.monitor for run in finished)
    higher = not monitor.endswith(("loss", "ece", "brier"))
    sign = -1.0 if higher else 1.0
    keys = varying(finished)
    grouped: dict[tuple[str, ...], list[Run]] = {}
    for run in finished:
        grouped.setdefault(tuple(run.setting(key) for key in keys), []).append(run)
    rows = [_row(keys, values, members, sign) for values, members in grouped.items()]
    rows.sort(key=lambda row: sign * row.monitor.mean)
    comparison = _best_against_next(rows) if len(rows) > 1 else None
    effects = sorted((_effect(key, finished) for key in keys), key=lambda effect: -effect.variance_explained)
    unfinished = tuple(run for run in runs if run.value is None)
    total = sum(run.seconds for run in runs)
    return Board(monitor, higher, tuple(keys), tuple(rows), tuple(effects), comparison, unfinished, total)


def retrain_command(board: Board) -> str:
    """What to type for the winner, with the seed of its best run."""
    overrides = dict(board.rows[0].best_run.overrides)
    return " ".join(["python -m finetune.train", *typed(overrides)])


def write_csv(board: Board, path: Path, price_per_hour: float | None) -> None:
    """One row per configuration: rank, varied keys, statistics of the monitor, means of all metrics, time and cost."""
    metrics = list(dict.fromkeys(name for row in board.rows for name in row.metrics))
    header = ["rank", *board.keys, "n", "mean", "std", "ci95_low", "ci95_high", *metrics, "seconds"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*header, *(["cost"] if price_per_hour is not None else []), "best_run"])
        for rank, row in enumerate(board.rows, start=1):
            found = row.monitor
            statistics = [
                "" if value is None else repr(value) for value in (found.mean, found.std, found.low, found.high)
            ]
            means = [repr(row.metrics[name]) if name in row.metrics else "" for name in metrics]
            cost = [] if price_per_hour is None else [f"{row.seconds / 3600 * price_per_hour:.4f}"]
            own = [row.values[key] for key in board.keys]
            writer.writerow(
                [rank, *own, found.n, *statistics, *means, f"{row.seconds:.3f}", *cost, row.best_run.directory]
            )


def number(text: str) -> float | None:
    """The value of ``text`` when it is a finite number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _row(keys: Sequence[str], values: tuple[str, ...], members: list[Run], sign: float) -> Row:
    ordered = sorted(members, key=lambda run: sign * (run.value or 0.0))
    names = dict.fromkeys(name for run in ordered for name in run.metrics)
    metrics = {
        name: sum(run.metrics[name] for run in ordered) / len(ordered)
        for name in names
        if all(name in run.metrics for run in ordered)
    }
    return Row(
        values=dict(zip(keys, values)),
        runs=tuple(ordered),
        monitor=estimate([run.value for run in members if run.value is not None], _folds(members)),
        metrics=metrics,
        seconds=sum(run.seconds for run in members),
    )


def _best_against_next(rows: Sequence[Row]) -> Comparison:
    first, second = ({run.replicate: run.value or 0.0 for run in row.runs} for row in rows[:2])
    return compare(first, second, _folds([*rows[0].runs, *rows[1].runs]))


def _folds(runs: Sequence[Run]) -> int | None:
    """The number of folds when the repetitions are folds of one cross-validation."""
    counts = {run.overrides.get("data.folds") for run in runs}
    folds = {run.overrides.get(REPLICATES[1]) for run in runs}
    (count, *others) = counts
    return int(count) if count and not others and len(folds) > 1 else None


def _effect(key: str, runs: Sequence[Run]) -> Effect:
    grouped: dict[str, list[float]] = {}
    for run in runs:
        grouped.setdefault(run.setting(key), []).append(run.value or 0.0)
    numbers = {text: number(text) for text in grouped}
    numeric = [text for text in grouped if numbers[text] is not None]
    correlation = None
    if len(numeric) == len(grouped) and len(grouped) > 2:
        pairs = [(numbers[text] or 0.0, value) for text in grouped for value in grouped[text]]
        correlation = rank_correlation([first for first, _ in pairs], [second for _, second in pairs])
    ordered = sorted(grouped, key=lambda text: (numbers[text] is None, numbers[text] or 0.0, text))
    means = {text: (sum(grouped[text]) / len(grouped[text]), len(grouped[text])) for text in ordered}
    explained = variance_explained(list(grouped.values()))
    if len(grouped) > _FEW_VALUES and correlation is not None:
        explained = correlation**2  # nearly every run has a value of its own: groups of one explain everything
    return Effect(key, means, explained, correlation)
