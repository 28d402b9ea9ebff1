"""Matplotlib figures as inline SVG that follows the page: colours are CSS variables, text is text, ids never collide.

Matplotlib knows no CSS, so figures are drawn in marker colours that no palette uses and the markers are then replaced.
That is what makes one drawing readable in light and in dark.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, SURFACE = "#010203", "#010204", "#010205", "#010206"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215", "#010216")
RIGHT, WRONG = "#010221", "#010222"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    RIGHT: "right",
    WRONG: "wrong",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "lines.linewidth": 1.8,
}


def styled(name: str, **changes: Any) -> AbstractContextManager[None]:
    """Matplotlib settings to draw the figure ``name`` in; nothing global is changed."""
    import matplotlib as mpl

    settings: Any = {**_STYLE, "svg.hashsalt": name, **changes}
    return mpl.rc_context(settings)


def figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that no global state knows about; draw within ``styled``."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def inline(drawing: Figure, name: str, description: str) -> str:
    """The SVG element; ``name`` keeps its ids apart from those of other figures, ``description`` is for readers."""
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.DOTALL)
    markup = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', markup)
    markup = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", markup)
    markup = re.sub(r'(<use[^>]*?)xlink:href="#([^"]+)"', rf'\1href="#{name}-\2"', markup)
    markup = re.sub(r'<a xlink:href="([^"]+)"(?: target="_blank")?', r'<a href="\1"', markup)
    markup = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", markup)
    markup = re.sub(r"font: bold ([\d.]+)px [^;\"]*", r"font-size: \1px; font-weight: 600", markup)
    markup = re.sub(r" font-family: [^;\"]*;", "", markup)
    markup = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", markup, flags=re.DOTALL)  # it would style the page
    markup = re.sub(r"\s*\n\s*", " ", markup)
    for colour, variable in _VARIABLES.items():
        markup = markup.replace(colour, f"var(--{variable})")
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return markup.replace("<svg ", f'<svg role="img" class="{name}" aria-label="{label}" ', 1)
