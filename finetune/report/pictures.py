"""Collects the page's pictures, the most important first, until its budget is spent; Grad-CAM for the galleries."""

from __future__ import annotations

from finetune.errors import ConfigError, ImageError
from finetune.report import selection
from finetune.report.galleries import Galleries
from finetune.report.subject import Image, Subject
from finetune.report.thumbnails import Thumbnails, overlay

CAM = "cam-"
_CAM_BATCH = 8
_MAX_SOUGHT = 1500
"""Images that are decoded for the cells at most."""


def collect(
    subject: Subject, galleries: Galleries, cells: dict[tuple[int, int], list[int]], shown: Thumbnails, *, gradcam: bool
) -> None:
    """Fill ``shown``: by row number, and the Grad-CAM overlays as ``cam-ROW``. Notes go into ``galleries.notes``."""
    rows = list(galleries.rows())
    for start in range(0, len(rows), _CAM_BATCH):
        read = [(row, picture(subject, row)) for row in rows[start : start + _CAM_BATCH]]
        batch = [(row, image_HWC) for row, image_HWC in read if image_HWC is not None]
        for row, image_HWC in batch:
            shown.add(str(row), image_HWC)
        if gradcam and batch:
            _add_maps(subject, galleries, batch, shown)
    for number, row in enumerate(selection.round_robin(cells)):
        if number >= _MAX_SOUGHT:
            break
        image = None if str(row) in shown.uris else picture(subject, row)
        if image is not None and not shown.add(str(row), image):
            break


def picture(subject: Subject, row: int) -> Image | None:
    """The network's input, or None where the file has gone since it was evaluated; its name is shown all the same."""
    try:
        return subject.read(row)
    except ImageError:
        return None


def _add_maps(subject: Subject, galleries: Galleries, batch: list[tuple[int, Image]], shown: Thumbnails) -> None:
    if "gradcam" in galleries.notes:
        return
    if subject.maps is None:
        galleries.notes["gradcam"] = "No Grad-CAM: it needs gradients, which only a checkpoint gives."
        return
    numbers = [int(subject.predictions.probabilities_NK[row].argmax()) for row, _ in batch]
    try:
        maps_BHW = subject.maps([image_HWC for _, image_HWC in batch], numbers)
    except ConfigError as error:
        galleries.notes["gradcam"] = str(error)
        return
    if maps_BHW is None:
        galleries.notes["gradcam"] = "No Grad-CAM: this network has no spatial map before its pooling."
        return
    for (row, image_HWC), map_HW in zip(batch, maps_BHW, strict=True):
        shown.add(f"{CAM}{row}", overlay(image_HWC, map_HW))
