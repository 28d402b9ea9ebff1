"""``report.html``: one self-contained page that shows how good a model is, where it fails and what to look at next.

No network, under ``max_megabytes`` whatever the number of images: pictures are added in the order in which they matter
until the budget is spent, and images beyond it are listed by name. Costs the decoding of the images shown (milliseconds
each) and, with Grad-CAM, a forward and a backward pass for those in the galleries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import ConfigError, ImageError
from finetune.metrics.evaluation import Evaluation
from finetune.report import selection
from finetune.report.confusion import cells, matrix
from finetune.report.curves import curves
from finetune.report.findings import findings
from finetune.report.label_errors import label_errors
from finetune.report.reliability import diagram
from finetune.report.subject import Image, RunFiles, Subject, read_run
from finetune.report.thumbnails import Thumbnails, overlay

PAGE = "report.html"
_TEMPLATES = Path(__file__).parent / "page"
_CAM_BATCH = 8
_MAX_CELL_IMAGES = 24
_MAX_SOUGHT = 1500
"""Images that are decoded for the page at most."""
_BASE_BYTES = 900_000
"""Room for everything but pictures: drawings of up to 200 classes, tables, style and script."""


@dataclass(frozen=True)
class Galleries:
    """Rows to show, in order; ``notes`` says why something is missing."""

    mistakes: list[int]
    uncertain: list[int]
    best: dict[str, list[int]]
    suspects: list[int]
    notes: dict[str, str]

    def rows(self) -> Iterator[int]:
        """Every row once, the most important first."""
        best = (row for rows in self.best.values() for row in rows)
        yield from dict.fromkeys([*self.mistakes, *self.uncertain, *self.suspects, *best])


class HtmlReport:
    """Keys of ``conf/report/html.yaml``."""

    def __init__(
        self,
        *,
        gallery: int = 12,
        thumbnail_px: int = 112,
        max_megabytes: float = 4.5,
        gradcam: bool = True,
        label_errors: bool = True,
    ) -> None:
        if max_megabytes < 1.5:
            raise ConfigError(f"report.max_megabytes={max_megabytes} is too small for a page; expected at least 1.5")
        self.gallery = gallery
        self.thumbnail_px = thumbnail_px
        self.max_megabytes = max_megabytes
        self.gradcam = gradcam
        self.label_errors = label_errors

    def write(self, run_directory: Path, subject: Subject) -> Path:
        """Write ``report.html`` whole or not at all; gives its path."""
        content = self.render(read_run(run_directory), subject)
        path = run_directory / PAGE
        part = path.with_name(f"{PAGE}.part")
        part.write_text(content, encoding="utf-8", errors="replace")
        part.replace(path)
        return path

    def render(self, run: RunFiles, subject: Subject) -> str:
        """The page as text."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        predictions, evaluation = subject.predictions, subject.evaluation
        galleries = self._galleries(subject)
        by_cell = {} if predictions.is_multilabel else selection.by_cell(predictions)
        shown = self._thumbnails(subject, galleries, by_cell)
        environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"percent": _percent, "figure": _figure}
        return environment.get_template("page.html.j2").render(
            subject=subject,
            predictions=predictions,
            evaluation=evaluation,
            run=run,
            galleries=galleries,
            curves=curves(run.history, subject.monitor, subject.phases),
            matrix="" if evaluation.confusion is None else matrix(evaluation.confusion, predictions.classes),
            headline=_headline(evaluation),
            data_findings=findings(run.data_report),
            pairs=_pairs(evaluation, predictions.classes),
            reliability=diagram(evaluation.reliability_raw, evaluation.reliability_calibrated, predictions.temperature),
            data=_embedded(subject, shown, by_cell, galleries),
        )

    def _galleries(self, subject: Subject) -> Galleries:
        predictions, notes = subject.predictions, dict[str, str]()
        suspects: list[int] = []
        if not self.label_errors:
            notes["suspects"] = "Not looked for (report.label_errors=false)."
        elif subject.trained_on:
            notes["suspects"] = "Not looked for: the model was trained on these images, so it agrees with their labels."
        else:
            try:
                suspects = label_errors(predictions)
            except ConfigError as error:
                notes["suspects"] = str(error)
        each = max(1, min(4, 2 * self.gallery // max(1, len(predictions.classes))))
        best = selection.best_of_each_class(predictions, each)
        return Galleries(
            selection.confident_mistakes(predictions, self.gallery),
            selection.least_certain(predictions, self.gallery),
            best if len(best) <= 4 * self.gallery else dict(list(best.items())[: 4 * self.gallery]),
            suspects[: 2 * self.gallery],
            notes,
        )

    def _thumbnails(
        self, subject: Subject, galleries: Galleries, by_cell: dict[tuple[int, int], list[int]]
    ) -> Thumbnails:
        """Pictures by row number, and Grad-CAM overlays of the galleries as ``cam-ROW``, until the budget is spent."""
        budget = int(self.max_megabytes * 1e6) - _BASE_BYTES
        shown = Thumbnails(size_px=self.thumbnail_px, max_bytes=budget)
        rows = list(galleries.rows())
        for start in range(0, len(rows), _CAM_BATCH):
            batch = [
                (row, image) for row in rows[start : start + _CAM_BATCH] if (image := _read(subject, row)) is not None
            ]
            for row, image_HWC in batch:
                shown.add(str(row), image_HWC)
            self._add_maps(subject, galleries, batch, shown)
        limited = {cell: cell_rows[:_MAX_CELL_IMAGES] for cell, cell_rows in by_cell.items()}
        for number, row in enumerate(selection.round_robin(limited)):
            if number >= _MAX_SOUGHT:
                break
            image = None if str(row) in shown.uris else _read(subject, row)
            if image is not None and not shown.add(str(row), image):
                break
        return shown

    def _add_maps(
        self, subject: Subject, galleries: Galleries, batch: list[tuple[int, Image]], shown: Thumbnails
    ) -> None:
        if not self.gradcam or not batch or "gradcam" in galleries.notes:
            return
        if subject.maps is None:
            galleries.notes["gradcam"] = "No Grad-CAM: it needs gradients, which only a checkpoint gives."
            return
        numbers = [int(subject.predictions.probabilities_NK[row].argmax()) for row, _ in batch]
        try:
            maps_BHW = subject.maps([image for _, image in batch], numbers)
        except ConfigError as error:
            galleries.notes["gradcam"] = str(error)
            return
        if maps_BHW is None:
            galleries.notes["gradcam"] = "No Grad-CAM: this network has no spatial map before its pooling."
            return
        for (row, image_HWC), map_HW in zip(batch, maps_BHW, strict=True):
            shown.add(f"cam-{row}", overlay(image_HWC, map_HW))


def _read(subject: Subject, row: int) -> Image | None:
    """The picture, or None where the file has gone since it was evaluated; its name is shown all the same."""
    try:
        return subject.read(row)
    except ImageError:
        return None


def _embedded(
    subject: Subject, shown: Thumbnails, by_cell: dict[tuple[int, int], list[int]], galleries: Galleries
) -> dict[str, Any]:
    """What the page's script needs: pictures, one record per row that is shown anywhere, and the rows of each cell."""
    predictions = subject.predictions
    limited = {f"{true}-{predicted}": rows[:_MAX_CELL_IMAGES] for (true, predicted), rows in by_cell.items()}
    listed = dict.fromkeys([*galleries.rows(), *(row for rows in limited.values() for row in rows)])
    records = {
        str(row): [
            predictions.paths[row],
            predictions.label(row),
            predictions.prediction(row),
            round(float(predictions.confidence_N[row]), 4),
        ]
        for row in listed
    }
    sizes = {f"{true}-{predicted}": len(rows) for (true, predicted), rows in by_cell.items()}
    return {
        "pictures": shown.uris,
        "records": records,
        "cells": limited,
        "sizes": sizes,
        "classes": list(predictions.classes),
    }


def _headline(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Figures of the first row, with their titles; those that were not measured are left out."""
    titles = {
        "accuracy": "Accuracy",
        "map": "Mean average precision",
        "balanced_accuracy": "Balanced accuracy",
        "macro_f1": "Macro F1",
        "f1": "Macro F1",
        "micro_f1": "Micro F1",
        "top5_accuracy": "Among the first five",
        "auroc": "AUROC",
    }
    return [(name, title) for name, title in titles.items() if name in evaluation.metrics]


def _pairs(evaluation: Evaluation, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The most frequent confusions."""
    if evaluation.confusion is None:
        return []
    rows, columns, share = cells(evaluation.confusion)
    return [
        {
            "cell": f"{row}-{column}",
            "true": classes[row],
            "predicted": classes[column],
            "images": int(evaluation.confusion[row, column]),
            "share": float(part),
        }
        for row, column, part in zip(rows, columns, share, strict=True)
        if row != column
    ][:20]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
