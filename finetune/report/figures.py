"""The page's drawings, once as SVG for the page and once as image files that trackers upload (W&B, MLflow)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finetune.report import lr_range
from finetune.report.confusion import matrix
from finetune.report.curves import History, curves
from finetune.report.lr_range import RatesTried
from finetune.report.reliability import diagram
from finetune.report.subject import Image, Subject
from finetune.report.svg import Draw, Palette, figure, inline, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "figures"
PER_CLASS = "per_class.csv"
MAX_MATRIX_CLASSES = 60
"""Beyond it the matrix as an image file is larger than anybody looks at; the page has it whole."""


class Drawn(NamedTuple):
    """How to draw something, and what it shows, in words."""

    draw: Draw
    description: str


def drawings(subject: Subject, history: History, tried: RatesTried | None) -> dict[str, Drawn]:
    """By name; what there is no data for is left out."""
    evaluation = subject.evaluation
    found: dict[str, Drawn] = {}
    if history:
        draw = partial(curves, history, subject.monitor, subject.phases)
        found["curves"] = Drawn(draw, f"Loss, monitor and learning rate over {len(history)} epochs")
    if tried is not None:
        text = f"Loss after a step at each of {len(tried.rates)} learning rates; {tried.taken:g} was taken"
        found["lr_range"] = Drawn(partial(lr_range.diagram, tried), text)
    if evaluation.confusion is not None:
        classes = subject.predictions.classes
        text = f"Confusion matrix of {len(classes)} classes, {evaluation.num_images} images"
        found["matrix"] = Drawn(partial(matrix, evaluation.confusion, classes), text)
    raw, calibrated = evaluation.reliability_raw, evaluation.reliability_calibrated
    draw = partial(diagram, raw, calibrated, subject.predictions.temperature)
    found["reliability"] = Drawn(draw, f"Reliability diagram; expected calibration error {raw.ece:.3f}")
    return found


def as_svg(drawn: dict[str, Drawn]) -> dict[str, str]:
    """Markup by name."""
    return {name: inline(entry.draw, name, entry.description) for name, entry in drawn.items()}


def write_files(
    directory: Path, subject: Subject, drawn: dict[str, Drawn], mistakes: Sequence[tuple[Image, str]]
) -> None:
    """``figures/*.png``, and ``per_class.csv`` with the figures of each class; mistakes are pictures with a caption."""
    for name, entry in drawn.items():
        if name != "matrix" or len(subject.predictions.classes) <= MAX_MATRIX_CLASSES:
            write_png(entry.draw, directory / FOLDER / f"{name}.png")
    if mistakes:
        write_png(partial(_contact_sheet, mistakes), directory / FOLDER / "mistakes.png")
    with (directory / PER_CLASS).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = [vars(row) for row in subject.evaluation.per_class]
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _contact_sheet(mistakes: Sequence[tuple[Image, str]], _: Palette) -> Figure:
    columns = 4
    rows = -(-len(mistakes) // columns)
    drawing = figure(2.2 * columns, 2.5 * rows)
    for number, (image_HWC, caption) in enumerate(mistakes, start=1):
        axes = drawing.add_subplot(rows, columns, number)
        axes.imshow(image_HWC)
        axes.set_title(caption, fontsize=7, fontweight="normal", parse_math=False)
        axes.set_axis_off()
    return drawing
