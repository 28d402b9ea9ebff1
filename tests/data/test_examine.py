"""What the examination finds: leaks, near duplicates, changed files, damaged classes; and that it remembers."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from finetune.data import examiners
from finetune.data.examine import examine
from finetune.data.folder import FolderData
from finetune.data.near import Likeness, describe, pairs_between, pairs_within
from finetune.data.report import DataReport

Pixels = np.ndarray


def checked(root: Path, **keys: object) -> DataReport:
    return examine(FolderData(0, path=str(root), **keys).load(), progress=False)  # type: ignore[arg-type]


def write(file: Path, image: Pixels, quality: int = 92) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality))


def half(image: Pixels) -> Pixels:
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def recompressed(image: Pixels) -> Pixels:
    return simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=60))


def cropped(image: Pixels, share: float) -> Pixels:
    down, across = round(image.shape[0] * share), round(image.shape[1] * share)
    return image[down : image.shape[0] - down, across : image.shape[1] - across]


@pytest.mark.slow
def test_leaks_between_splits_are_found_and_nothing_else(tmp_path: Path, photograph: Callable) -> None:
    """200 exact and 200 near copies of training images stand in val, among 400 images of their own."""
    for number in range(400):
        write(tmp_path / "train" / "ab"[number % 2] / f"{number}.jpg", photograph(number))
        write(tmp_path / "val" / "ab"[number % 2] / f"own{number}.jpg", photograph(10_000 + number))
    changes = (half, recompressed, lambda image: cropped(image, 0.01), lambda image: recompressed(half(image)))
    for number in range(200):
        label = "ab"[number % 2]
        source = tmp_path / "train" / label / f"{number}.jpg"
        (tmp_path / "val" / label / f"exact{number}.jpg").write_bytes(source.read_bytes())
        changed = changes[number % 4](photograph(200 + number))
        write(tmp_path / "val" / label / f"near{200 + number}.jpg", changed)
    report = checked(tmp_path)
    name = report.table.path
    leaks = {(name(p.row).stem, name(p.other).stem): p.exact for p in report.pairs if p.across}
    assert sum(leaks.get((str(n), f"exact{n}"), False) for n in range(200)) == 200
    found = sum((str(n), f"near{n}") in leaks for n in range(200, 400))
    assert found >= 190
    false_alarms = len(leaks) - 200 - found + sum(not pair.across for pair in report.pairs)
    assert false_alarms <= 0.01 * len(report.table)
    assert any("200 exact duplicate(s) stand in two splits" in text for text in report.warnings)


def fresh(seed: int) -> Pixels:
    """A picture of another kind than those that the radii were chosen on: other spectra, colours that oppose."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(180)[:, None], np.fft.rfftfreq(260)[None])
    frequency[0, 0] = np.inf
    amplitude = frequency ** -generator.uniform(0.9, 1.3)
    noise = (generator.normal(size=(2, *amplitude.shape)) for _ in range(3))
    fields = np.stack([np.fft.irfft2(amplitude * (real + 1j * other), (180, 260)) for real, other in noise], axis=-1)
    pixels = fields @ np.array([[1, 1, 1], [0.35, 0, -0.35], [0.1, -0.15, 0.1]])
    return np.clip(pixels / pixels.std() * 45 + generator.uniform(90, 160, 3), 0, 255).astype(np.uint8)


def test_near_duplicates_are_found_among_pictures_that_the_radii_were_not_chosen_on() -> None:
    """200 pictures of a generator, and seeds, that played no part; the copies are made by Pillow."""

    def pillow(image: Pixels) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=60, subsampling=2)
        return np.asarray(Image.open(buffer))

    def shrunk(image: Pixels, kernel: Image.Resampling) -> Pixels:
        return np.asarray(Image.fromarray(image).resize((130, 90), kernel))

    pictures = [fresh(80_000 + seed) for seed in range(200)]
    stored = stacked(pictures)
    assert len(pairs_within(stored)) == 0
    changes = (
        pillow,
        lambda image: shrunk(image, Image.Resampling.NEAREST),
        lambda image: shrunk(image, Image.Resampling.LANCZOS),
        lambda image: cropped(image, 0.01),
        lambda image: pillow(shrunk(cropped(image, 0.01), Image.Resampling.BILINEAR)),
    )
    for change in changes:
        pairs = pairs_between(stacked([change(image) for image in pictures]), stored).tolist()
        assert len({own for own, other in pairs if own == other}) >= 0.95 * len(pictures)
        assert sum(own != other for own, other in pairs) <= 0.01 * len(pictures)


def test_near_duplicates_of_drawings_survive_resizing_recompression_and_a_slight_crop(clipart: Path) -> None:
    originals = [np.asarray(Image.open(file).convert("RGB")) for file in sorted(clipart.glob("*/*/*.jpg"))]
    stored = stacked(originals)
    for change in (half, recompressed, lambda image: cropped(image, 0.01)):
        pairs = pairs_between(stacked([change(image) for image in originals]), stored)
        assert len({own for own, other in pairs.tolist() if own == other}) >= 0.99 * len(originals)


def stacked(images: list[Pixels]) -> Likeness:
    found = [describe(image) for image in images]
    assert all(likeness is not None for likeness in found)
    return Likeness(np.stack([one.coarse for one in found]), np.stack([one.fine for one in found]))


def test_pairs_are_those_of_a_slow_comparison_of_all_with_all(photograph: Callable) -> None:
    images = [photograph(seed, height=96, width=96) for seed in range(40)]
    images += [recompressed(images[0]), half(images[1]), cropped(images[1], 0.01)]
    likeness = stacked(images)
    coarse, fine = likeness.coarse.astype(np.float64), likeness.fine.astype(np.float64) / 256
    slow = {
        (one, other)
        for other in range(len(images))
        for one in range(other)
        if np.linalg.norm(coarse[one] - coarse[other]) < 0.12 and np.linalg.norm(fine[one] - fine[other]) < 0.2
    }
    assert {tuple(pair) for pair in pairs_within(likeness).tolist()} == slow == {(0, 40), (1, 41), (1, 42), (41, 42)}


def test_flat_pictures_are_compared_by_their_bytes_only() -> None:
    assert describe(np.full((50, 50, 3), 255, dtype=np.uint8)) is None


def test_copies_with_another_label_are_named(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("a", "b"), n=5, size=(20, 20))
    (root / "b" / "copy.png").write_bytes((root / "a" / "000.png").read_bytes())
    report = checked(root)
    exact = [pair for pair in report.pairs if pair.exact]
    assert [(report.table.relative(p.row), report.table.relative(p.other)) for p in exact] == [
        ("a/000.png", "b/copy.png")
    ]
    assert not exact[0].across  # the splitter keeps copies together
    assert "1 pair(s) of identical files have different labels" in report.warnings
    assert report.to_dict()["duplicates"]["with_different_labels"] >= 1


def test_what_training_refuses(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("train/a", "train/b", "val/a", "val/b"), n=3, size=(20, 20))
    for file in [*(root / "train" / "b").iterdir(), *(root / "val").glob("*/*")]:
        file.write_bytes(b"not an image")
    report = checked(root)
    assert report.problems == ("1 class(es) have no readable image to train on: 'b'", "no image of val can be read")
    assert len(report.unreadable) == 9
    assert len(report.clean()) == 3
    assert report.to_dict()["unreadable"][0]["reason"] == "its content is no image format that is read here"


def test_a_replayed_split_refuses_files_that_changed(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = image_folder(n=4, size=(20, 20))
    first = checked(root)
    assert first.problems == ()
    first.clean().write_csv(tmp_path / "split.csv")
    assert checked(root, split_file=str(tmp_path / "split.csv")).problems == ()
    Image.new("RGB", (20, 20), (1, 2, 3)).save(root / "blue" / "002.png")
    again = checked(root, split_file=str(tmp_path / "split.csv"))
    assert again.problems == ("1 file(s) changed since data.split_file was written: blue/002.png",)


def test_verdicts_are_remembered_until_a_file_changes(
    image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(n=6, size=(20, 20))
    first = checked(root)
    assert first.cached == 0
    read: list[int] = []
    real = examiners.examine_file
    monkeypatch.setattr(examiners, "examine_file", lambda path: (read.append(1), real(path))[1])
    second = checked(root)
    assert (second.cached, read) == (18, [])
    assert second.to_dict() | {"cached": 0, "seconds": 0} == first.to_dict() | {"seconds": 0}
    (root / "blue" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    os.utime(root / "coral" / "000.png", ns=(1, 1))
    third = checked(root)
    assert (third.cached, len(read)) == (16, 2)
    assert [third.table.relative(row) for row in third.unreadable] == ["blue/000.png"]


def test_a_damaged_memory_is_ignored(image_folder: Callable[..., Path]) -> None:
    root = image_folder(n=3, size=(20, 20))
    checked(root)
    stored = list((Path(os.environ["XDG_CACHE_HOME"]) / "finetune" / "verdicts").iterdir())
    assert len(stored) == 1
    stored[0].write_bytes(stored[0].read_bytes()[:-100])
    assert checked(root).cached == 0
    stored[0].write_bytes(b"")
    assert checked(root).cached == 0
    assert checked(root).cached == 9


def test_processes_and_this_process_give_the_same_verdicts(
    image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = image_folder(n=8, size=(20, 20), suffix=".jpg")
    table = FolderData(0, path=str(root)).load()
    here = examine(table, progress=False, cache_dir=tmp_path / "one")
    monkeypatch.setattr(examiners, "_FEW_FILES", 0)
    there = examine(table, workers=2, progress=False, cache_dir=tmp_path / "two")
    assert there.to_dict() | {"seconds": 0} == here.to_dict() | {"seconds": 0}
    assert (there.table.hashes == here.table.hashes).all()


def test_formats_modes_sizes_and_orientations_are_counted(tmp_path: Path, photograph: Callable) -> None:
    image = Image.fromarray(photograph(1, height=60, width=90))
    turned = Image.Exif()
    turned[0x0112] = 6
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        image.save(tmp_path / label / "1.jpg", exif=turned)
        image.convert("L").save(tmp_path / label / "2.png")
        image.convert("RGBA").save(tmp_path / label / "3.webp", lossless=True)
    found = checked(tmp_path).to_dict()
    assert found["formats"] == {"JPEG": 2, "PNG": 2, "WEBP": 2}
    assert found["orientations"] == {"1": 4, "6": 2}
    assert found["modes"]["L"] == 2
    assert found["size"]["height"] == {"min": 60, "median": 60.0, "max": 90}


def test_imbalance_and_tiny_images_are_worth_a_warning(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = image_folder(classes=("a",), n=40, size=(40, 40))
    image_folder(classes=("b",), n=3, size=(40, 40), seed=5)
    Image.open(io.BytesIO((root / "a" / "000.png").read_bytes())).resize((9, 9)).save(root / "a" / "tiny.png")
    warnings = checked(root).warnings
    assert any(text.startswith("imbalanced: 'a' has") for text in warnings)
    assert any("smaller than 32 pixels: a/tiny.png" in text for text in warnings)
