"""A trained model in three lines of Python, whatever file it comes from.

    from finetune.classifier import Classifier
    classifier = Classifier.load("runs/.../checkpoints/best.ckpt")      # or any directory that export wrote
    print(classifier.predict(["cat.jpg"])[0].label)

``scores`` is the one loop that evaluate, predict and the report run images through: files are decoded on threads while
the network computes, at most two batches ahead, so that memory does not grow with the number of images. A classifier
that was opened with a ``cache`` asks the store of features first, a thousand images at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.errors import ImageError, combine
from finetune.exporter.artefact import Description, Runtime
from finetune.metrics.predictions import Predictions
from finetune.views import Tta, views

if TYPE_CHECKING:
    from finetune.cache.features import FeatureCache
    from finetune.pooled import PooledScores

Image = npt.NDArray[np.uint8]
Source = str | Path | bytes | Image
"""A file, an encoded image, or a decoded RGB image H W 3."""
Loaded = list[Image] | ImageError
"""The views of one image, or why there are none."""
_WINDOW = 1024
"""Images that are looked up in the store together: 8 MB of features of a ResNet-50."""


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
    """``runtime`` computes, ``description`` (classes, preprocessing, temperature, thresholds) gives it meaning.

    ``pooled`` has the scores of images that were seen before; it changes none of them, and only how long they take.
    """

    def __init__(self, runtime: Runtime, pooled: PooledScores | None = None) -> None:
        self.runtime = runtime
        self.pooled = pooled
        self.description: Description = runtime.description

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", cache: FeatureCache | None = None) -> Classifier:
        """Open a checkpoint or an exported directory; ``cache`` is of use to a checkpoint. Raises ``CheckpointError``."""
        from finetune.opening import open_pooled, open_runtime

        runtime = open_runtime(path, device=device)
        return cls(runtime, None if cache is None else open_pooled(runtime, cache))

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

        def load(source: Source) -> Loaded:
            try:
                return views(self.read(source), preprocessing, tta)
            except ImageError as error:
                return error

        known = self.pooled if tta == "none" and not any(isinstance(source, np.ndarray) for source in sources) else None
        with ThreadPoolExecutor(num_workers or min(8, os.cpu_count() or 1)) as pool:
            first = 0
            while known is not None and first < len(sources) and not known.live:
                window, left = sources[first : first + _WINDOW], len(sources) - first
                yield from self._known(known, window, first, left, batch_size, pool, load)
                first += _WINDOW
            if known is not None:
                known.say()
            for start, loaded in _ahead(sources[first:], batch_size, pool, load):
                yield self._scored(np.arange(len(loaded)) + first + start, loaded)

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

    def _known(
        self,
        known: PooledScores,
        sources: Sequence[Source],
        first: int,
        left: int,
        batch_size: int,
        pool: ThreadPoolExecutor,
        load: Callable[[Source], Loaded],
    ) -> Iterator[Scores]:
        """``scores`` of one window by way of the store; ``first`` is its place, ``left`` what follows with it."""
        errors: dict[int, ImageError] = {}

        def images(positions: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], Image]]:
            for start, loaded in _ahead([sources[position] for position in positions], batch_size, pool, load):
                places = positions[start : start + len(loaded)]
                found = [
                    (place, entry[0]) for place, entry in zip(places, loaded, strict=True) if isinstance(entry, list)
                ]
                errors.update(
                    (int(place), entry)
                    for place, entry in zip(places, loaded, strict=True)
                    if isinstance(entry, ImageError)
                )
                if found:
                    yield np.array([place for place, _ in found]), np.stack([image for _, image in found])

        window = known.scores(lambda: np.stack(list(pool.map(_digest, sources))), images, left)
        place_N = np.full(len(sources), -1)
        place_N[window.positions] = np.arange(len(window.positions))
        for start in range(0, len(sources), batch_size):
            rows = np.arange(start, min(start + batch_size, len(sources)))
            there = place_N[rows] >= 0
            absent = rows[~there]
            rest = self._scored(absent, [errors.get(int(row)) or load(sources[row]) for row in absent])
            both = np.concatenate([rows[there], rest.rows])
            logits_BK = np.concatenate([window.logits_NK[place_N[rows[there]]], rest.logits_BK])
            order = np.argsort(both)
            yield Scores(both[order] + first, logits_BK[order], rest.unreadable)

    def _scored(self, rows: npt.NDArray[np.int64], loaded: list[Loaded]) -> Scores:
        readable = [(row, images) for row, images in zip(rows, loaded, strict=True) if isinstance(images, list)]
        unreadable = tuple(entry for entry in loaded if isinstance(entry, ImageError))
        kept = np.array([row for row, _ in readable], dtype=np.int64)
        if not readable:
            return Scores(kept, np.zeros((0, len(self.classes)), dtype=np.float32), unreadable)
        num_views = len(readable[0][1])
        passes = [self.runtime.logits(np.stack([images[view] for _, images in readable])) for view in range(num_views)]
        return Scores(kept, np.mean(passes, axis=0, dtype=np.float32) if num_views > 1 else passes[0], unreadable)


def _ahead(
    sources: Sequence[Source], batch_size: int, pool: ThreadPoolExecutor, load: Callable[[Source], Loaded]
) -> Iterator[tuple[int, list[Loaded]]]:
    """Batches of what ``load`` makes of the sources, each with the place of its first, two more being made meanwhile."""
    pending: deque[Future[Loaded]] = deque()
    for first in range(0, len(sources), batch_size):
        ahead = first + 3 * batch_size
        pending.extend(pool.submit(load, sources[row]) for row in range(first + len(pending), min(ahead, len(sources))))
        yield first, [pending.popleft().result() for _ in range(min(batch_size, len(sources) - first))]


def _digest(source: Source) -> npt.NDArray[np.uint8]:
    """sha256 of an encoded image; zeros when it cannot be read."""
    from finetune.data.image import read_bytes

    assert isinstance(source, str | Path | bytes)
    try:
        content = source if isinstance(source, bytes) else read_bytes(source)
    except ImageError:
        return np.zeros(32, dtype=np.uint8)
    return np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8)


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
