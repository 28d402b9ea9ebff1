"""The leaderboard's drawings: every run by the value of one key, and every configuration as a line through all keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.leaderboard.board import Board, Row, number
from finetune.report.svg import Palette, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOG_FROM = 30  # a range of this ratio is drawn on a logarithmic axis
_LONGEST_LABEL = 18


def effect(board: Board, key: str, paint: Palette) -> Figure:
    """The monitor of every run over the values of ``key``, with the mean of each value."""
    drawing = figure(3.6, 2.7)
    axes = drawing.add_subplot()
    texts = [row.values[key] for row in board.rows for _ in row.runs]
    values = [run.value or 0.0 for row in board.rows for run in row.runs]
    numbers = [number(text) for text in texts]
    means = next(found.means for found in board.effects if found.key == key)
    if None in numbers:
        order = list(means)
        axes.scatter([order.index(text) for text in texts], values, color=paint.series[0], s=18, alpha=0.6)
        axes.hlines([mean for mean, _ in means.values()], [place - 0.25 for place in range(len(order))],
                    [place + 0.25 for place in range(len(order))], color=paint.series[1], linewidth=2)  # fmt: skip
        axes.set_xticks(
            range(len(order)),
            [_short(text) for text in order],
            rotation=30 if len(order) > 3 else 0,
            ha="right" if len(order) > 3 else "center",
        )
    else:
        places = [value or 0.0 for value in numbers]
        axes.scatter(places, values, color=paint.series[0], s=18, alpha=0.6)
        ordered = [(number(text) or 0.0, mean) for text, (mean, _) in means.items()]
        axes.plot([place for place, _ in ordered], [mean for _, mean in ordered], color=paint.series[1], linewidth=1.2)
        if min(places) > 0 and max(places) / min(places) >= _LOG_FROM:
            axes.set_xscale("log")
    axes.set_title(key)
    axes.set_ylabel(board.monitor)
    return drawing


def parallel_coordinates(board: Board, paint: Palette) -> Figure:
    """One line per configuration through its values of every key to its mean; the best tenth is drawn on top."""
    keys = [found.key for found in board.effects]
    drawing = figure(max(4.5, 1.7 * (len(keys) + 1)), 3.4)
    axes = drawing.add_subplot()
    scales = [_scale([row.values[key] for row in board.rows]) for key in keys]
    means = [row.monitor.mean for row in board.rows]
    low, span = min(means), (max(means) - min(means)) or 1.0
    top = max(1, len(board.rows) // 10)
    for rank, row in reversed(list(enumerate(board.rows))):
        heights = [scale[row.values[key]] for scale, key in zip(scales, keys)] + [(row.monitor.mean - low) / span]
        best = rank < top
        axes.plot(heights, color=paint.series[1] if best else paint.series[0], alpha=1.0 if best else 0.3,
                  linewidth=2.0 if best else 1.0)  # fmt: skip
    for place, scale in enumerate(scales):
        shown = sorted(scale.items(), key=lambda entry: entry[1])
        step = max(1, math.ceil(len(shown) / 6))
        for text, height in shown[::step]:
            axes.text(place + 0.03, height, _short(text), fontsize=7, color=paint.muted, va="center")
    for share in (0.0, 0.5, 1.0):
        axes.text(len(keys) + 0.03, share, f"{low + share * span:.3f}", fontsize=7, color=paint.muted, va="center")
    axes.set_xticks(range(len(keys) + 1), [_short(key) for key in [*keys, board.monitor]])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(-0.1, len(keys) + 0.45)
    return drawing


def ranking(rows: Sequence[Row], monitor: str, paint: Palette) -> Figure:
    """Mean and 95% interval of the first rows, and every repetition as a dot."""
    drawing = figure(6.0, 0.9 + 0.26 * len(rows))
    axes = drawing.add_subplot()
    for place, row in enumerate(rows):
        found = row.monitor
        if found.low is not None and found.high is not None:
            axes.hlines(place, found.low, found.high, color=paint.series[0], linewidth=2)
        axes.scatter([run.value or 0.0 for run in row.runs], [place] * len(row.runs), color=paint.muted, s=10, zorder=3)
        axes.scatter([found.mean], [place], color=paint.series[1], s=28, zorder=4)
    axes.set_yticks(range(len(rows)), [str(rank) for rank in range(1, len(rows) + 1)])
    axes.invert_yaxis()
    axes.set_xlabel(monitor)
    return drawing


def _scale(texts: Sequence[str]) -> dict[str, float]:
    """A height from 0 to 1 for every value: by size (by its logarithm over a large range), or in order."""
    numbers = {text: number(text) for text in texts}
    known = [value for value in numbers.values() if value is not None]
    if len(known) == len(numbers) and len(set(known)) > 1:
        log = min(known) > 0 and max(known) / min(known) >= _LOG_FROM
        sizes = {text: math.log(value or 1.0) if log else value or 0.0 for text, value in numbers.items()}
        low, high = min(sizes.values()), max(sizes.values())
        return {text: (size - low) / (high - low) for text, size in sizes.items()}
    ordered = sorted(numbers)
    return {text: (place + 0.5) / len(ordered) for place, text in enumerate(ordered)}


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
