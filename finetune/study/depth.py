"""The depth study: what shortcuts do to the gradient and to the training loss, as two pictures and a table.

``gradient_by_depth.png``: the gradient's norm at every convolution before the first step, and through training the
ratio of the first convolution's to the last one's. ``loss_by_depth.png``: training loss by epoch. One column for each
way to normalise and to initialise. A ratio far from 1 says that one end of the network moves and the other does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.callback.gradient_flow import FILE_NAME, read
from finetune.study.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {18: "#2b6cdb", 34: "#12806a", 50: "#d2501a", 101: "#8149c9"}
Panel = tuple[bool, str]
"""With batch normalisation or without, and the initialisation."""


class Network(NamedTuple):
    """One network of the study; ``gradients`` has one row per step, one norm per convolution, input to output.

    A norm that is zero or not finite is NaN: it has no place on a logarithmic axis.
    """

    depth: int
    shortcut: str
    panel: Panel
    run: Run
    gradients: list[list[float]]

    @property
    def label(self) -> str:
        """As in the legend."""
        kinds = {"none": "plain", "add": "residual", "concat": "concatenating"}
        return f"{kinds[self.shortcut]} {self.depth}"

    @property
    def ratio_at_start(self) -> float | None:
        """First convolution's gradient over the last one's before the first step; None where a branch starts at zero."""
        ratio = self.gradients[0][0] / self.gradients[0][-1] if self.gradients else math.nan
        return ratio if math.isfinite(ratio) else None


def applies(runs: Sequence[Run]) -> bool:
    """Whether every run has a shortcut to speak of, and some recorded their gradients by layer."""
    return (
        bool(runs)
        and all("shortcut" in run.backbone for run in runs)
        and any((run.directory / FILE_NAME).exists() for run in runs)
    )


def draw(runs: Sequence[Run], output: Path) -> str:
    """Write both pictures into ``output`` and give the table in Markdown."""
    networks = sorted(
        (_network(run) for run in runs), key=lambda one: (one.panel[1], not one.panel[0], one.depth, one.shortcut)
    )
    output.mkdir(parents=True, exist_ok=True)
    panels = list(dict.fromkeys(one.panel for one in networks))
    _save(_gradients(networks, panels), output / "gradient_by_depth.png")
    _save(_losses(networks, panels), output / "loss_by_depth.png")
    return table(networks)


def table(networks: Sequence[Network]) -> str:
    """One line per network."""
    lines = [
        "| network | normalisation | initialisation | gradient, first / last layer | training loss | test accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for one in networks:
        normalisation = "BatchNorm" if one.panel[0] else "none"
        losses, ratio, accuracy = one.run.curve("train/loss"), one.ratio_at_start, one.run.test("accuracy")
        cells = [one.label, normalisation, one.panel[1], "-" if ratio is None else f"{ratio:.3g}"]
        cells += [f"{losses[-1]:.2f}" if losses else "-", "-" if accuracy is None else f"{accuracy:.2f}"]
        if one.run.result["status"] != "completed":
            cells[-1] = str(one.run.result["status"])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _network(run: Run) -> Network:
    keys = run.backbone
    panel = (bool(keys["batch_norm"]), str(keys["initialisation"]))
    path = run.directory / FILE_NAME
    rows = read(path) if path.exists() else []
    return Network(int(str(keys["name"]).removeprefix("plain")), str(keys["shortcut"]), panel, run, _by_depth(rows))


def _by_depth(rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Norms of the convolutions on the main path; projections and the head stand beside it."""
    main = [name for name in (rows[0] if rows else {}) if name == "conv1" or ".conv" in name]
    return [[row[name] or math.nan for name in main] for row in rows]


def _gradients(networks: Sequence[Network], panels: Sequence[Panel]) -> Figure:
    figure, axes = _grid(2, panels)
    for column, panel in enumerate(panels):
        at_start, through = axes[0][column], axes[1][column]
        for one in (one for one in networks if one.panel == panel and one.gradients):
            first = one.gradients[0]
            at_start.plot(
                [layer / (len(first) - 1) for layer in range(len(first))], first, marker=".", ms=3, **_line(one)
            )
            through.plot([step[0] / step[-1] for step in one.gradients], **_line(one))
        at_start.set(title=_title(panel), xlabel="depth of the layer (0: input)", yscale="log")
        through.set(xlabel="step", yscale="log")
        through.axhline(1, color="#5a626c", linewidth=0.6)
    axes[0][0].set_ylabel("gradient norm before step 1")
    axes[1][0].set_ylabel("first layer's / last layer's")
    _legend(figure, axes[0][0])
    return figure


def _losses(networks: Sequence[Network], panels: Sequence[Panel]) -> Figure:
    figure, axes = _grid(1, panels)
    for column, panel in enumerate(panels):
        for one in (one for one in networks if one.panel == panel):
            losses = one.run.curve("train/loss")
            axes[0][column].plot(range(1, len(losses) + 1), losses, **_line(one))
        axes[0][column].set(title=_title(panel), xlabel="epoch")
        axes[0][column].set_ylim(0, 4)
    axes[0][0].set_ylabel("training loss")
    _legend(figure, axes[0][0])
    return figure


def _grid(rows: int, panels: Sequence[Panel]) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(2.9 * len(panels), 2.5 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, len(panels), squeeze=False, sharey="row")
    for one in axes.flat:
        one.grid(color="#dfe2e6", linewidth=0.6)
        one.spines[["top", "right"]].set_visible(False)
    return figure, [list(row) for row in axes]


def _line(one: Network) -> dict[str, Any]:
    dashes = {"none": "--", "add": "-", "concat": ":"}
    return {
        "color": COLOURS.get(one.depth, "#1b1e22"),
        "linestyle": dashes[one.shortcut],
        "label": one.label,
        "linewidth": 1.4,
    }


def _title(panel: Panel) -> str:
    return f"{'BatchNorm' if panel[0] else 'no normalisation'}, {panel[1]} init"


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), fontsize=8, frameon=False)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=90, metadata={"Software": None})
