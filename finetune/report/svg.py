"""Matplotlib figures as inline SVG that follows the page: colours are CSS variables, text is text, ids never collide.

Matplotlib knows no CSS, so figures are drawn in marker colours that no palette uses and the markers are then replaced.
That is what makes one drawing readable in light and in dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Palette(NamedTuple):
    """What the drawings are painted with."""

    ink: str
    muted: str
    grid: str
    right: str
    wrong: str
    series: tuple[str, ...]


MARKERS = Palette("#010203", "#010204", "#010205", "#010221", "#010222", tuple(f"#01021{n}" for n in range(1, 7)))
"""Colours that become the page's CSS variables."""
LIGHT = Palette(
    "#1b1e22", "#5a626c", "#dfe2e6", "#2b6cdb", "#d2501a",
    ("#2b6cdb", "#d2501a", "#12806a", "#8149c9", "#b93279", "#86740a"),
)  # fmt: skip
"""For image files, which know no CSS: the page's light colours."""
Draw = Callable[[Palette], "Figure"]
_VARIABLES = {
    MARKERS.ink: "ink",
    MARKERS.muted: "muted",
    MARKERS.grid: "grid",
    MARKERS.right: "right",
    MARKERS.wrong: "wrong",
    **{colour: f"series-{number}" for number, colour in enumerate(MARKERS.series, start=1)},
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "lines.linewidth": 1.8,
}


def figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that no global state knows about."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def inline(draw: Draw, name: str, description: str) -> str:
    """The SVG element; ``name`` keeps its ids apart from those of other figures, ``description`` is for readers."""
    buffer = io.StringIO()
    with _styled(MARKERS, name), _any_script():
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        draw(MARKERS).savefig(buffer, format="svg", metadata=metadata)
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.DOTALL)
    markup = re.sub(r"<!--.*?-->", "", markup, flags=re.DOTALL)
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


def write_png(draw: Draw, path: Path) -> None:
    """The same drawing as an image file on white, for trackers and slides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _styled(LIGHT, path.stem), _any_script():
        draw(LIGHT).savefig(path, format="png", dpi=100, facecolor="white")


@contextmanager
def _any_script() -> Iterator[None]:
    """Names in scripts that Matplotlib's own font lacks are text in the page, where the reader's fonts draw them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _styled(paint: Palette, name: str) -> AbstractContextManager[None]:
    import matplotlib as mpl

    inks = ("text.color", "axes.titlecolor")
    lines = ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color")
    words = ("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    colours = dict.fromkeys(inks, paint.ink) | dict.fromkeys(lines, paint.grid) | dict.fromkeys(words, paint.muted)
    settings: Any = {**_STYLE, **colours, "svg.hashsalt": name}
    return mpl.rc_context(settings)
