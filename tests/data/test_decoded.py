"""Kept decoded images: the same batches, each image decoded once, by whatever process, and a budget that holds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import pytest
import torch

from finetune.data import dataset
from finetune.data.dataset import ImageRows
from finetune.data.decoded import DecodedCache
from finetune.data.folder import FolderData
from finetune.data.table import Table
from finetune.errors import ConfigError
from finetune.preprocessing import Preprocessing
from tests.conftest import write_image_folder

SIZE = Preprocessing(size=(32, 32))
BYTES = 40 * 44 * 3
Kind = Literal["ram", "disk"]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    folder = write_image_folder(tmp_path / "images", n=4, size=(40, 44), suffix=".jpg")
    return FolderData(0, path=str(folder)).load()


def read(images: ImageRows, monkeypatch: pytest.MonkeyPatch) -> tuple[list[torch.Tensor], int]:
    """All images of two epochs, and how many were decoded for it."""
    decoded = []
    plain = dataset.read_image

    def count(*arguments: object, **keywords: object) -> object:
        decoded.append(1)
        return plain(*arguments, **keywords)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "read_image", count)
        found = [images[epoch, row].image_HWC for epoch in range(2) for row in range(len(images))]
    return [image.clone() for image in found if image is not None], len(decoded)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_images_are_decoded_once_and_are_the_same_to_the_bit(
    kind: Kind, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, every_time = read(ImageRows(table, SIZE, None, 0), monkeypatch)
    assert every_time == 24
    cache = DecodedCache(table, kind, 0.001, tmp_path)
    found, once = read(ImageRows(table, SIZE, None, 0, decoded=cache), monkeypatch)
    assert once == 12
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    _, again = read(ImageRows(table, SIZE, None, 0, decoded=cache), monkeypatch)
    assert again == 0, "a second loader of the same size finds them"
    _, later_run = read(
        ImageRows(table, SIZE, None, 0, decoded=DecodedCache(table, kind, 0.001, tmp_path)), monkeypatch
    )
    assert later_run == (0 if kind == "disk" else 12)
    larger = Preprocessing(size=(36, 36))
    _, other_size = read(ImageRows(table, larger, None, 0, decoded=cache), monkeypatch)
    assert other_size == 12, "decoded for another size, so decoded again"


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_loader_processes_share_what_one_of_them_has_decoded(
    kind: Kind, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageRows(table, SIZE, None, 0, decoded=DecodedCache(table, kind, 0.001, tmp_path))
    loader = torch.utils.data.DataLoader(
        images, sampler=[(0, row) for row in range(12)], num_workers=2, batch_size=None
    )
    from_workers = [sample.image_HWC for sample in loader]
    found, decoded_here = read(images, monkeypatch)
    assert decoded_here == 0
    assert all(torch.equal(one, other) for one, other in zip(from_workers, found, strict=False))


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_the_budget_holds_and_is_mentioned_once(
    kind: Kind, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = DecodedCache(table, kind, 5.5 * BYTES / 1e9, tmp_path)
    expected, _ = read(ImageRows(table, SIZE, None, 0), monkeypatch)
    with caplog.at_level(logging.WARNING):
        found, decoded = read(ImageRows(table, SIZE, None, 0, decoded=cache), monkeypatch)
    assert decoded == 12 + (12 - 5)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert len([text for text in caplog.messages if "data.cache_gb" in text]) == 1
    assert len(list(tmp_path.rglob("*.npy"))) == (5 if kind == "disk" else 0)


def test_a_damaged_file_is_decoded_again(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageRows(table, SIZE, None, 0, decoded=DecodedCache(table, "disk", 0.001, tmp_path))
    expected, _ = read(images, monkeypatch)
    damaged = min(tmp_path.rglob("*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    found, decoded = read(images, monkeypatch)
    assert decoded == 1
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_more_memory_than_the_machine_has_is_refused(table: Table) -> None:
    with pytest.raises(ConfigError, match=r"data\.cache_gb=1e\+06 is more than the .* GB of memory"):
        DecodedCache(table, "ram", 1e6)
