"""``data_report.html``: the data report as one self-contained page, with pictures where pictures tell more.

Examples of every class, class and size histograms, duplicate pairs side by side, the files that are not used, and a
batch as augmentation makes it. At most 120 examples and 24 pairs: under 2 MB, and about a second.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
import numpy as np
import numpy.typing as npt
import simplejpeg
from markupsafe import Markup
from PIL import Image

from finetune.data.image import read_image
from finetune.data.report import DataReport, printable
from finetune.data.table import Table
from finetune.errors import ImageError

_TEMPLATES = Path(__file__).parent / "page"
_EXAMPLES, _PER_CLASS, _PAIRS = 120, 6, 24
_THUMBNAIL_PX = 96


def write_page(report: DataReport, path: Path, augmented_jpeg: bytes, augmented_words: str) -> None:
    """Write the page. ``augmented_jpeg`` is one image of the batch; empty when there is nothing to train on."""
    table = report.clean()
    rows = _example_rows(table)
    pairs = report.pairs.first(_PAIRS)
    wanted = {table.relative(row) for own in rows.values() for row in own}
    wanted |= {report.table.relative(row) for pair in pairs for row in (pair.row, pair.other)}
    pictures = _thumbnails(table.root, sorted(wanted))
    content = report.to_dict()
    counts = [sum(content["splits"][split][name] for split in content["splits"]) for name in content["classes"]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("data_report.html.j2").render(
        d=content,
        largest=max([1, *counts]),
        counted=lambda counts: ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none",
        size_chart=Markup(_size_chart(np.minimum(report.heights, report.widths))),  # noqa: S704 - numbers only
        augmented=_data_url(augmented_jpeg) if augmented_jpeg else "",
        augmented_words=augmented_words,
        pairs=[
            {**fields, "pictures": [pictures.get(report.table.relative(row), "") for row in (pair.row, pair.other)]}
            for pair, fields in zip(pairs, content["duplicates"]["pairs"], strict=False)
        ],
        lists=[
            ("Files that cannot be read", content["unreadable"], content["num_unreadable"]),
            ("Damaged files that are used", content["suspect"], content["num_suspect"]),
        ],
        examples=[
            (printable(name), [(printable(table.relative(row)), pictures.get(table.relative(row), "")) for row in own])
            for name, own in rows.items()
        ],
    )
    path.write_text(page, encoding="utf-8")


def _example_rows(table: Table) -> dict[str, list[int]]:
    """Rows of each class, spread evenly over its images in table order."""
    shown_classes = table.classes[:_EXAMPLES]
    per_class = max(1, min(_PER_CLASS, _EXAMPLES // max(1, len(shown_classes))))
    rows = {}
    picks: Iterable[np.int64]
    for number, name in enumerate(shown_classes):
        own = np.flatnonzero(table.targets[:, number] > 0.5 if table.task == "multilabel" else table.targets == number)
        picks = np.unique(np.linspace(0, len(own) - 1, per_class).round().astype(np.int64)) if len(own) else []
        rows[name] = [int(own[pick]) for pick in picks]
    return rows


def _thumbnails(root: Path, names: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(lambda name: _thumbnail(root / name), names), strict=True))


def _thumbnail(path: Path) -> str:
    try:
        image = Image.fromarray(read_image(path, min_size_px=_THUMBNAIL_PX))
    except ImageError:  # gone since it was examined
        return ""
    image.thumbnail((2 * _THUMBNAIL_PX, _THUMBNAIL_PX))
    return _data_url(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=75))


def _data_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _size_chart(short_N: npt.NDArray[np.int32]) -> str:
    """Histogram of the short side over powers of the square root of two, as SVG."""
    sides = short_N[short_N > 0]
    if not len(sides):
        return ""
    steps = np.floor(2 * np.log2(sides)).astype(np.int64)
    first, last = int(steps.min()), int(steps.max())
    counts = np.bincount(steps - first, minlength=last - first + 1)
    width, height = 46, 120
    parts = []
    for place, count in enumerate(counts.tolist()):
        tall = 0 if not count else max(2, round((height - 34) * count / int(counts.max())))
        x, y = place * width, height - 18 - tall
        low = math.ceil(2 ** ((first + place) / 2))
        parts.append(f'<rect x="{x + 2}" y="{y}" width="{width - 4}" height="{tall}"/>')
        parts.append(f'<text x="{x + 2}" y="{height - 4}">{low}</text>')
        if count:
            parts.append(f'<text x="{x + 2}" y="{y - 4}">{count:,}</text>')
    size = f'width="{width * len(counts)}" height="{height}" viewBox="0 0 {width * len(counts)} {height}"'
    chart = f'<svg role="img" aria-label="Histogram of the short side" {size}>{"".join(parts)}</svg>'
    return f'<div class="scroll">{chart}</div>'
