"""A trained model in three lines of Python, whatever file it comes from.

    from finetune.classifier import Classifier
    classifier = Classifier.load("runs/.../checkpoints/best.ckpt")      # or any directory that export wrote
    print(classifier.predict(["cat.jpg"])[0].label)

``scores`` is the one loop that evaluate, predict and the report run images through: files are decoded on threads while
the network computes, at most two batches ahead, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.errors import ImageError, combine
from finetune.exporter.artefact import Description, Runtime
from finetune.metrics.predictions import Predictions
from finetune.views import Tta, views

Image = npt.NDArray[np.uint8]
Source = str | Path | bytes | Image
"""A file, an encoded image, or a decoded RGB image H W 3."""


class Prediction(NamedTuple):
    """What the model says about one image; ``label`` joins several classes by ``|`` for multi-label models."""

    path: str
    label: str
    confidence: float
    probabilities: Mapping[str, float]


class Scores(NamedTuple):
    """One batch: positions of its readable images among the sources, their logits, and what could not be read."""

    rows: npt.NDArray[np.int64]
    logits_BK: npt.NDArray[np.float32]
    unreadable: tuple[ImageError, ...]


class Classifier:
    """``runtime`` computes, ``description`` (classes, preprocessing, temperature, thresholds) gives it meaning."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.description: Description = runtime.description

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Classifier:
        """Open a checkpoint or an exported directory. Raises ``CheckpointError``."""
        from finetune.opening import open_runtime

        return cls(open_runtime(path, device=device))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the scores."""
        return self.description.classes

    def read(self, source: Source) -> Image:
        """A decoded image H W 3, at least as large as the network needs. Raises ``ImageError``."""
        from finetune.data.image import read_image

        if isinstance(source, np.ndarray):
            return source
        preprocessing = self.description.preprocessing
        return read_image(source, min_size_px=preprocessing.min_source_px, background=preprocessing.background)

    def scores(
        self, sources: Sequence[Source], *, batch_size: int = 32, num_workers: int | None = None, tta: Tta = "none"
    ) -> Iterator[Scores]:
        """Logits of the sources in order, batch by batch; those of an image's ``tta`` views are averaged."""
        preprocessing = self.description.preprocessing

        def load(source: Source) -> list[Image] | ImageError:
            try:
                return views(self.read(source), preprocessing, tta)
            except ImageError as error:
                return error

        with ThreadPoolExecutor(num_workers or min(8, os.cpu_count() or 1)) as pool:
            pending: deque[Future[list[Image] | ImageError]] = deque()
            for first in range(0, len(sources), batch_size):
                ahead = first + 3 * batch_size
                pending.extend(
                    pool.submit(load, sources[row]) for row in range(first + len(pending), min(ahead, len(sources)))
                )
                loaded = [pending.popleft().result() for _ in range(min(batch_size, len(sources) - first))]
                yield self._scored(first, loaded)

    def predictions(self, paths: Sequence[str], logits_NK: npt.NDArray[np.float32]) -> Predictions:
        """Unlabelled scores with this model's classes, temperature and thresholds."""
        description = self.description
        unknown = np.full(len(paths), -1, dtype=np.int64)
        targets: npt.NDArray[Any] = unknown if description.task == "multiclass" else np.full(logits_NK.shape, -1.0)
        return Predictions(
            tuple(paths), logits_NK, targets, description.classes, description.temperature, description.thresholds
        )

    def predict(self, sources: Sequence[Source], *, batch_size: int = 32, tta: Tta = "none") -> list[Prediction]:
        """One prediction per source, in order. Raises ``ImageError`` (all of them at once) when one cannot be read."""
        found: list[Prediction] = []
        unreadable: list[ImageError] = []
        for chunk in self.scores(sources, batch_size=batch_size, tta=tta):
            unreadable.extend(chunk.unreadable)
            paths = [_name(sources[row]) for row in chunk.rows]
            found.extend(as_records(self.predictions(paths, chunk.logits_BK)))
        if unreadable:
            raise combine(unreadable)
        return found

    def _scored(self, first: int, loaded: list[list[Image] | ImageError]) -> Scores:
        readable = [
            (row, images) for row, images in enumerate(loaded, start=first) if not isinstance(images, ImageError)
        ]
        unreadable = tuple(entry for entry in loaded if isinstance(entry, ImageError))
        rows = np.array([row for row, _ in readable], dtype=np.int64)
        if not readable:
            return Scores(rows, np.zeros((0, len(self.classes)), dtype=np.float32), unreadable)
        num_views = len(readable[0][1])
        passes = [self.runtime.logits(np.stack([images[view] for _, images in readable])) for view in range(num_views)]
        return Scores(rows, np.mean(passes, axis=0, dtype=np.float32) if num_views > 1 else passes[0], unreadable)


def as_records(predictions: Predictions) -> list[Prediction]:
    """One record per image."""
    return [
        Prediction(
            path,
            predictions.prediction(row),
            float(predictions.confidence_N[row]),
            dict(zip(predictions.classes, map(float, predictions.probabilities_NK[row]), strict=True)),
        )
        for row, path in enumerate(predictions.paths)
    ]


def _name(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | Path) else "<image>"
