"""The data sets of the benchmark as folders: train/ and val/ of N images a class, and always the same test/.

``clipart`` is data/clipart; ``digits`` are scikit-learn's 1,797 handwritten ones (8 x 8 pixels); ``fashion`` is
Fashion-MNIST from Debian's package dataset-fashion-mnist (28 x 28). Which images are drawn, and which fifth of them
validates, is decided by the seed; every contestant gets the same ones.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FASHION = Path("/usr/share/datasets/fashion-mnist")
GARMENTS = ("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
VAL_SHARE = 0.2
TEST_PER_CLASS = {"digits": 50, "fashion": 100}
"""Of clip art all 88, and of Fashion-MNIST's whole set all 10,000, as published results have it."""

Pictures = dict[str, Sequence[Image.Image | Path]]
"""Class to its images, opened or as files that are copied."""


class Dataset(NamedTuple):
    """A set at one size; ``per_class`` None: all there are."""

    name: str
    per_class: int | None

    def __str__(self) -> str:
        return f"{self.name}-{self.per_class or 'all'}"


def write(dataset: Dataset, seed: int, root: Path) -> Path:
    """The folder of ``dataset`` as ``seed`` draws it, written unless it is there."""
    folder = root / f"{dataset}-{seed}"
    if folder.is_dir():
        return folder
    part = folder.with_name(folder.name + ".part")
    train, test = _sources(dataset)
    rng = np.random.default_rng(seed)
    for name, pictures in sorted(train.items()):
        chosen = rng.permutation(len(pictures))[: dataset.per_class]
        held = max(1, round(VAL_SHARE * len(chosen)))
        _save(part / "val" / name, [pictures[i] for i in chosen[:held]])
        _save(part / "train" / name, [pictures[i] for i in chosen[held:]])
    for name, pictures in sorted(test.items()):
        _save(part / "test" / name, pictures)
    return part.rename(folder)


def _sources(dataset: Dataset) -> tuple[Pictures, Pictures]:
    """Everything that may be trained on, and the test images."""
    name = dataset.name
    if name == "clipart":
        folders = [REPOSITORY / "data/clipart" / split for split in ("train", "test")]
        train, test = ({d.name: sorted(d.iterdir()) for d in sorted(folder.iterdir())} for folder in folders)
        return train, test
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        by_class = _by_class((digits.images * 15.9375).astype(np.uint8), digits.target, tuple("0123456789"))
        cut = TEST_PER_CLASS[name]  # the file ends with other writers than it begins with
        return {key: images[:-cut] for key, images in by_class.items()}, {
            key: images[-cut:] for key, images in by_class.items()
        }
    if not FASHION.is_dir():
        raise SystemExit(f"{FASHION} is not there; apt-get install dataset-fashion-mnist")
    train, test = (
        _by_class(_idx(f"{part}-images-idx3"), _idx(f"{part}-labels-idx1"), GARMENTS) for part in ("train", "t10k")
    )
    return train, test if dataset.per_class is None else {
        key: images[: TEST_PER_CLASS[name]] for key, images in test.items()
    }


def _by_class(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], names: Sequence[str]) -> Pictures:
    return {name: [Image.fromarray(image) for image in images[labels == number]] for number, name in enumerate(names)}


def _idx(name: str) -> npt.NDArray[np.uint8]:
    """An array of Fashion-MNIST's file format: a magic number whose last byte counts the dimensions, their sizes, bytes."""
    content = gzip.decompress((FASHION / f"{name}-ubyte.gz").read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _save(folder: Path, pictures: Sequence[Image.Image | Path]) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        if isinstance(picture, Path):
            (folder / picture.name).write_bytes(picture.read_bytes())
        else:
            picture.save(folder / f"{number:05d}.png")
