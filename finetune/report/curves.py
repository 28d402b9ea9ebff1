"""Training curves: loss, monitor and learning rate over epochs, with the freeze phases shaded behind them.

metrics.csv counts epochs from 0; the page, like the terminal, counts from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.report.svg import Palette, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Phase(NamedTuple):
    """Epochs ``start`` to ``end`` (exclusive) in which the stages of ``label`` train."""

    start: int
    end: int
    label: str


History = Sequence[Mapping[str, float]]
"""One mapping per epoch; the names are the columns of metrics.csv."""


def curves(history: History, monitor: str, phases: Sequence[Phase], paint: Palette) -> Figure:
    """Up to three panels side by side, for a history that is not empty."""
    names = list(dict.fromkeys(name for row in history for name in row))
    learning_rates = [name for name in names if "lr" in name.replace("/", "-").split("-")]
    panels: list[tuple[str, list[str], str]] = [
        ("Loss", [name for name in ("train/loss", "val/loss") if name in names], "linear"),
        (monitor, [monitor] if monitor in names and monitor not in ("train/loss", "val/loss") else [], "linear"),
        ("Learning rate", _spread(learning_rates, history), "log"),
    ]
    panels = [panel for panel in panels if panel[1]]
    drawing = figure(3.4 * max(1, len(panels)), 2.7)
    for number, (title, columns, scale) in enumerate(panels, start=1):
        axes = drawing.add_subplot(1, len(panels), number)
        _panel(axes, history, columns, paint)
        _shade(axes, phases, paint, labels=number == 1)
        axes.set_title(title)
        if scale == "log" and any(row.get(name, 0) > 0 for row in history for name in columns):
            axes.set_yscale("log")
    return drawing


def _spread(names: list[str], history: History) -> list[str]:
    """The lowest, the middle and the highest of many learning rates (a rate per stage would hide itself)."""
    ranked = sorted(names, key=lambda name: max(row.get(name, 0.0) for row in history))
    return ranked if len(ranked) <= 3 else [ranked[0], ranked[len(ranked) // 2], ranked[-1]]


def _shade(axes: Axes, phases: Sequence[Phase], paint: Palette, *, labels: bool) -> None:
    """Every other phase of the freeze schedule in grey, named at the foot."""
    for number, phase in enumerate(phases):
        if number % 2 == 0:
            axes.axvspan(phase.start + 0.5, phase.end + 0.5, color=paint.muted, alpha=0.12, linewidth=0)
        if labels and len(phases) > 1:
            place: dict[str, Any] = {"rotation": 90, "va": "bottom", "ha": "left", "fontsize": 7}
            where = axes.get_xaxis_transform()
            axes.text(phase.start + 0.6, 0.02, phase.label, transform=where, color=paint.muted, **place)


def _panel(axes: Axes, history: History, columns: Sequence[str], paint: Palette) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, colour in zip(columns, paint.series, strict=False):
        points = [(row["epoch"] + 1, row[name]) for row in history if name in row]
        marker = "o" if len(points) < 25 else None
        axes.plot(*zip(*points, strict=True), color=colour, label=name, marker=marker, markersize=3)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(row["epoch"] for row in history) + 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(columns) > 1:
        axes.legend()
