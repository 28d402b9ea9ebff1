"""The confusion matrix as a drawing whose filled cells are links (``#cell-TRUE-PREDICTED``).

Readable at 3 and at 200 classes: every class keeps its label, the drawing grows with them and scrolls inside the page.
Colour is the share of the true class, blue where right and orange where wrong. Only cells with images are links, the
largest mistakes first, and at most ``MAX_LINKS`` of them; what is left over is drawn without a link.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune.report.svg import Palette, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINKS = 4000
_MAX_LABEL = 24
_MIN_NUMBER_PT = 13
"""Cells smaller than this hold no number."""


def matrix(confusion_KK: npt.NDArray[np.int64], classes: Sequence[str], paint: Palette) -> Figure:
    """Rows are the truth, columns the prediction."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    num_classes = len(classes)
    cell_in = float(np.clip(5.0 / num_classes, 0.125, 0.62))
    font_size = float(np.clip(cell_in * 72 * 0.62, 5.5, 10.0))
    rows, columns, share = cells(confusion_KK)
    side = cell_in * num_classes + max(len(shortened(name)) for name in classes) * font_size / 65 + 0.8
    drawing = figure(side, side)
    axes = drawing.add_subplot()
    squares = PatchCollection(
        [Rectangle((column, row), 1, 1) for row, column in zip(rows, columns, strict=True)],
        facecolors=[
            to_rgba(paint.right if row == column else paint.wrong, 0.12 + 0.88 * float(part))
            for row, column, part in zip(rows, columns, share, strict=True)
        ],
        edgecolors="none",
    )
    links = zip(rows[:MAX_LINKS], columns[:MAX_LINKS], strict=True)
    squares.set_urls([f"#cell-{row}-{column}" for row, column in links])
    squares.set_clip_on(False)
    axes.add_collection(squares)
    _axes(axes, classes, font_size, paint)
    if cell_in * 72 >= _MIN_NUMBER_PT:
        for row, column, part in zip(rows, columns, share, strict=True):
            place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": min(font_size, cell_in * 72 * 0.42)}
            colour = paint.ink if part < 0.6 else "white"
            axes.text(column + 0.5, row + 0.52, str(confusion_KK[row, column]), color=colour, **place)
    return drawing


def _axes(axes: Axes, classes: Sequence[str], font_size: float, paint: Palette) -> None:
    """A square per cell and the name of every class on both sides."""
    edges, names = np.arange(len(classes) + 1), [shortened(name) for name in classes]
    axes.set_xlim(0, len(classes))
    axes.set_ylim(len(classes), 0)
    axes.set_aspect("equal")
    axes.set_xticks(edges[:-1] + 0.5, names, rotation=90, fontsize=font_size)
    axes.set_yticks(edges[:-1] + 0.5, names, fontsize=font_size)
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a class may be called $5$
    axes.tick_params(which="both", length=0)
    axes.grid(visible=False, which="major")
    axes.grid(which="minor", color=paint.grid, linewidth=0.4)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def cells(
    confusion_KK: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Row, column and share of the true class of every cell with images: mistakes first, the most frequent first."""
    rows, columns = np.nonzero(confusion_KK)
    order = np.lexsort((columns, rows, -confusion_KK[rows, columns], rows == columns))
    rows, columns = rows[order], columns[order]
    share = confusion_KK[rows, columns] / confusion_KK.sum(axis=1)[rows]
    return rows, columns, share


def shortened(name: str) -> str:
    """A class name that fits beside the matrix."""
    return name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…"
