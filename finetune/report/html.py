"""``report.html``: one self-contained page that shows how good a model is, where it fails and what to look at next.

No network, under ``max_megabytes`` whatever the number of images: pictures are added in the order in which they matter
until the budget is spent, and images beyond it are listed by name. Costs the decoding of the images shown (milliseconds
each) and, with Grad-CAM, a forward and a backward pass for those in the galleries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.errors import ConfigError
from finetune.metrics.evaluation import Evaluation
from finetune.report import figures, selection
from finetune.report.confusion import cells
from finetune.report.findings import findings
from finetune.report.galleries import Galleries, choose
from finetune.report.pictures import collect, picture
from finetune.report.subject import RunFiles, Subject, read_run
from finetune.report.thumbnails import Thumbnails

PAGE = "report.html"
_TEMPLATES = Path(__file__).parent / "page"
_MAX_CELL_IMAGES = 24
_BASE_BYTES = 900_000
"""Room for everything but pictures: drawings of up to 200 classes, tables, style and script."""


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
        image_files: bool = True,
    ) -> None:
        if max_megabytes < 1.5:
            raise ConfigError(f"report.max_megabytes={max_megabytes} is too small for a page; expected at least 1.5")
        self.gallery = gallery
        self.thumbnail_px = thumbnail_px
        self.max_megabytes = max_megabytes
        self.gradcam = gradcam
        self.label_errors = label_errors
        self.image_files = image_files

    def write(self, run_directory: Path, subject: Subject) -> Path:
        """Write ``report.html`` whole or not at all, and the files that trackers upload; gives the page's path."""
        run = read_run(run_directory)
        drawn = figures.drawings(subject, run.history, run.lr_range)
        galleries = choose(subject, self.gallery, seek_label_errors=self.label_errors)
        path = run_directory / PAGE
        part = path.with_name(f"{PAGE}.part")
        part.write_text(self._render(run, subject, galleries, drawn), encoding="utf-8", errors="replace")
        part.replace(path)
        if self.image_files:
            figures.write_files(run_directory, subject, drawn, _captioned(subject, galleries.mistakes))
        return path

    def _render(self, run: RunFiles, subject: Subject, galleries: Galleries, drawn: dict[str, figures.Drawn]) -> str:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        predictions, evaluation = subject.predictions, subject.evaluation
        by_cell = {} if predictions.is_multilabel else selection.by_cell(predictions)
        limited = {cell: rows[:_MAX_CELL_IMAGES] for cell, rows in by_cell.items()}
        shown = Thumbnails(size_px=self.thumbnail_px, max_bytes=int(self.max_megabytes * 1e6) - _BASE_BYTES)
        collect(subject, galleries, limited, shown, gradcam=self.gradcam)
        environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"percent": _percent, "figure": _figure}
        sizes = {f"{true}-{predicted}": len(rows) for (true, predicted), rows in by_cell.items()}
        return environment.get_template("page.html.j2").render(
            subject=subject,
            predictions=predictions,
            evaluation=evaluation,
            run=run,
            galleries=galleries,
            drawings=figures.as_svg(drawn),
            headline=_headline(evaluation),
            data_findings=findings(run.data_report),
            pairs=_pairs(evaluation, predictions.classes),
            data=_embedded(subject, shown, limited, galleries) | {"sizes": sizes},
        )


def _captioned(subject: Subject, rows: list[int]) -> list[tuple[Any, str]]:
    predictions = subject.predictions
    found = []
    for row in rows:
        image_HWC = picture(subject, row)
        if image_HWC is not None:
            percent = 100 * predictions.confidence_N[row]
            found.append(
                (image_HWC, f"{predictions.prediction(row)} {percent:.0f}%\nlabelled {predictions.label(row)}")
            )
    return found


def _embedded(
    subject: Subject, shown: Thumbnails, cells: dict[tuple[int, int], list[int]], galleries: Galleries
) -> dict[str, Any]:
    """What the page's script needs: pictures, one record per row that is shown anywhere, and the rows of each cell."""
    predictions = subject.predictions
    listed = dict.fromkeys([*galleries.rows(), *(row for rows in cells.values() for row in rows)])
    records = {
        str(row): [
            predictions.paths[row],
            predictions.label(row),
            predictions.prediction(row),
            round(float(predictions.confidence_N[row]), 4),
        ]
        for row in listed
    }
    return {
        "pictures": shown.uris,
        "records": records,
        "cells": {f"{true}-{predicted}": rows for (true, predicted), rows in cells.items()},
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
