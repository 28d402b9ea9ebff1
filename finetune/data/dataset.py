"""The images of a table as a torch data set: read, augmented by key, resized; never normalised here.

Images leave as uint8, a quarter of the bytes of floats; the model normalises them on its device. A file that breaks
during training is not replaced by another one: it is left out of its batch and travels on by name.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from finetune.data.decoded import DecodedCache
from finetune.data.image import read_image
from finetune.data.sampler import PADDING, Rows
from finetune.data.table import Table
from finetune.errors import ImageError
from finetune.preprocessing import Preprocessing
from finetune.random_keys import derive_seed
from finetune.types import Batch

Image = npt.NDArray[np.uint8]


class Transform(Protocol):
    """An augmentation: a uint8 image H W 3 of any size and a seed to one of ``preprocessing.size``."""

    def __call__(self, image_HWC: Image, seed: int) -> Image: ...

    @property
    def min_source_px(self) -> int:
        """Short side to which a decoder may shrink a source without the transform losing detail."""


class Sample(NamedTuple):
    """One image on its way into a batch; ``image_HWC`` is None when the file cannot be read, ``reason`` says why."""

    image_HWC: Tensor | None
    target: Tensor
    row: int
    reason: str = ""


class ImageRows(Dataset[Sample]):
    """Rows of ``table`` by (epoch, row). ``transform`` None means evaluation: resize and centre crop.

    ``image_keys`` (one number per row) replaces the row in the augmentation's key; ``decoded`` keeps decoded images.
    """

    def __init__(
        self,
        table: Table,
        preprocessing: Preprocessing,
        transform: Transform | None,
        seed: int,
        image_keys: Rows | None = None,
        decoded: DecodedCache | None = None,
    ) -> None:
        self.table = table
        self.preprocessing = preprocessing
        self.transform = transform
        self.seed = seed
        self.image_keys = image_keys
        self.min_source_px = preprocessing.min_source_px if transform is None else transform.min_source_px
        self.kept = None if decoded is None else decoded.place(self.min_source_px, preprocessing.background)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, row = key
        if row == PADDING:
            height, width = self.preprocessing.size
            return Sample(torch.zeros(height, width, 3, dtype=torch.uint8), torch.as_tensor(self.table.targets[0]), row)
        target = torch.as_tensor(self.table.targets[row])
        try:
            image_HWC = self._read(row, epoch)
        except ImageError as error:
            return Sample(None, target, row, error.reason)
        return Sample(torch.from_numpy(np.require(image_HWC, requirements=("C", "W"))), target, row)

    def _read(self, row: int, epoch: int) -> Image:
        image_HWC = self._decode(row) if self.kept is None else self.kept.get(row, lambda: self._decode(row))
        if self.transform is None:
            return self.preprocessing.resize_crop(image_HWC)
        key = row if self.image_keys is None else int(self.image_keys[row])
        return self.transform(image_HWC, derive_seed(self.seed, "augmentation", epoch, key))

    def _decode(self, row: int) -> Image:
        path, background = self.table.path(row), self.preprocessing.background
        return read_image(path, min_size_px=self.min_source_px, background=background)


def collate(samples: list[Sample]) -> Batch:
    """Stack the readable samples in channels-last memory; the others are listed in ``Batch.unreadable``."""
    readable = [sample for sample in samples if sample.image_HWC is not None]
    images = [sample.image_HWC for sample in readable if sample.image_HWC is not None]
    return Batch(
        inputs=torch.stack(images).permute(0, 3, 1, 2) if images else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
        targets=torch.stack([sample.target for sample in readable]) if readable else torch.empty(0, dtype=torch.int64),
        indices=torch.tensor([sample.row for sample in readable], dtype=torch.int64),
        unreadable=tuple((sample.row, sample.reason) for sample in samples if sample.image_HWC is None),
    )
