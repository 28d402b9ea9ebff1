"""One check from configuration to report: list, split, examine, show a training batch, write, and say what matters.

Kept free of torch unless a batch has to be augmented that was not augmented before: a second check of 10,000 files
takes two seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from omegaconf import DictConfig, OmegaConf

from finetune.data.csv import CsvData
from finetune.data.data_page import write_page
from finetune.data.examine import examine
from finetune.data.folder import FolderData
from finetune.data.report import DataReport
from finetune.data.table import Table
from finetune.data.verdict_cache import default_cache_dir
from finetune.errors import FinetuneError, ImageError
from finetune.run_directory import write_json

log = logging.getLogger(__name__)
_SOURCES = {"finetune.data.folder.FolderData": FolderData, "finetune.data.csv.CsvData": CsvData}
_GRID = (4, 6)


def check(cfg: DictConfig, output: Path) -> DataReport:
    """Examine as configured, and write both reports into ``output``.

    Raises:
        DataError: the folder cannot be used at all.
        FinetuneError: training would refuse the data set (exit code 1); the reports are written.
    """
    table = _source(cfg).load()
    report = examine(table, workers=cfg.data.num_workers or None, progress=sys.stderr.isatty())
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "data_report.json", report.to_dict())
    augmented, words = _augmented(cfg, report.clean())
    write_page(report, output / "data_report.html", augmented, words)
    for line in report.lines():
        log.info("%s", line)
    log.info("report    %s", output / "data_report.html")
    if report.problems:
        listed = "\n".join(f"  {number}. {text}" for number, text in enumerate(report.problems, start=1))
        raise FinetuneError(f"training would refuse this data set:\n{listed}")
    return report


def _source(cfg: DictConfig) -> FolderData | CsvData:
    """The data source; our own are built without the composition root, which imports torch."""
    keys: dict[str, Any] = OmegaConf.to_container(cfg.data, resolve=True)  # type: ignore[assignment]
    kind = _SOURCES.get(str(keys.pop("_target_")))
    if kind is FolderData:
        return FolderData(cfg.seed, **keys)
    if kind is CsvData:
        return CsvData(cfg.seed, **keys)
    from finetune import build

    built: FolderData | CsvData = build.part(cfg.data, cfg.seed)
    return built


def _augmented(cfg: DictConfig, table: Table) -> tuple[bytes, str]:
    """A training batch as one JPEG, remembered by what it depends on, and what it shows."""
    train = table.rows("train")
    if not len(train):
        return b"", ""
    count = min(len(train), _GRID[0] * _GRID[1])
    rows = np.sort(np.random.default_rng(cfg.seed).choice(train, count, replace=False))
    transform = OmegaConf.to_container(cfg.transform, resolve=True)
    name = str(cfg.transform._target_).rpartition(".")[2]
    words = f"{count} training images as augmented by {name}, before normalisation."
    key = json.dumps([2, transform, cfg.data.image_size, cfg.seed, [table.sha256(int(row)) for row in rows]])
    remembered = default_cache_dir() / "batches" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.jpg"
    if remembered.is_file():
        return remembered.read_bytes(), words
    jpeg = _augment(cfg, table, rows)
    try:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        part = remembered.with_suffix(".part")
        part.write_bytes(jpeg)
        part.replace(remembered)
    except OSError:
        log.debug("the batch cannot be remembered in %s", remembered.parent)
    return jpeg, words


def _augment(cfg: DictConfig, table: Table, rows: npt.NDArray[np.int64]) -> bytes:
    from finetune import build
    from finetune.data.image import read_image
    from finetune.preprocessing import Preprocessing

    side = int(cfg.data.image_size)
    transform = build.part(cfg.transform, Preprocessing(size=(side, side)))
    tiles = []
    for number, row in enumerate(rows.tolist()):
        try:
            image_HWC = read_image(table.path(row), min_size_px=transform.min_source_px)
        except ImageError:  # gone since it was examined
            continue
        tiles.append(transform(image_HWC, seed=cfg.seed + number))
    across = min(_GRID[1], max(1, len(tiles)))
    down = -(-len(tiles) // across)
    grid_HWC = np.full((down * side, across * side, 3), 255, dtype=np.uint8)
    for number, tile_HWC in enumerate(tiles):
        top, left = number // across * side, number % across * side
        grid_HWC[top : top + side, left : left + side] = tile_HWC
    shrink = max(1, grid_HWC.shape[1] // 1344)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(grid_HWC[::shrink, ::shrink]), quality=85))
