"""The curve of a learning-rate range test, with the rate that was taken."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import OmegaConf

from finetune.report.svg import Palette, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RatesTried(NamedTuple):
    """Loss by rate, and the rate that the run took."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    taken: float


def read(directory: Path) -> RatesTried | None:
    """From ``lr_range.csv`` and ``config.yaml``; None where no rate was looked for."""
    curve = directory / "lr_range.csv"
    if not curve.is_file():
        return None
    with curve.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    taken = OmegaConf.select(OmegaConf.load(directory / "config.yaml"), "optimizer.lr")
    return RatesTried(tuple(float(row["lr"]) for row in rows), tuple(float(row["loss"]) for row in rows), float(taken))


def diagram(tried: RatesTried, paint: Palette) -> Figure:
    """Loss over the logarithm of the rate."""
    drawing = figure(3.8, 2.7)
    axes = drawing.add_subplot()
    axes.plot(tried.rates, tried.losses, color=paint.series[0])
    axes.axvline(tried.taken, color=paint.muted, linewidth=1, linestyle=(0, (4, 3)), label=f"taken: {tried.taken:g}")
    axes.set_xscale("log")
    axes.set(title="Learning rates tried", xlabel="optimizer.lr", ylabel="loss after the step")
    axes.legend()
    return drawing
