"""The classifier against the network called by hand, one image at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from finetune import build
from finetune.checkpoint import read_checkpoint
from finetune.classifier import Classifier
from finetune.data.image import read_image
from finetune.errors import DataError
from finetune.exporter.artefact import Description
from finetune.preprocessing import Preprocessing


def by_hand(ckpt: Path, path: Path) -> npt.NDArray[np.float64]:
    """Probabilities of one image, step by step."""
    checkpoint = read_checkpoint(ckpt)
    network = build.network_from_checkpoint(checkpoint)
    image_HWC = checkpoint.preprocessing.resize_crop(read_image(path))
    pixels_BCHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (checkpoint.preprocessing.mean, checkpoint.preprocessing.std)
    )
    with torch.no_grad():
        logits_BK = network((pixels_BCHW - mean) / std)
    return torch.softmax(logits_BK.double() / checkpoint.temperature, dim=1)[0].numpy()


def test_probabilities_are_those_of_the_network_called_by_hand(ckpt: Path, photographs: Path) -> None:
    paths = sorted(photographs.rglob("*.png"))[:4]
    found = Classifier.load(ckpt, device="cpu").predict(paths)
    assert [prediction.path for prediction in found] == [str(path) for path in paths]
    for path, prediction in zip(paths, found, strict=True):
        expected_K = by_hand(ckpt, path)
        np.testing.assert_allclose(list(prediction.probabilities.values()), expected_K, atol=1e-5)
        assert prediction.label == ("amber", "blue", "coral")[int(expected_K.argmax())]
        assert prediction.confidence == pytest.approx(expected_K.max(), abs=1e-5)


def test_paths_bytes_and_arrays_of_one_image_are_the_same_image(ckpt: Path, photographs: Path) -> None:
    path = photographs / "a" / "01.png"
    with Image.open(path) as image:
        pixels_HWC = np.asarray(image.convert("RGB"))
    found = Classifier.load(ckpt, device="cpu").predict([path, str(path), path.read_bytes(), pixels_HWC])
    assert len({prediction.probabilities["blue"] for prediction in found}) == 1


def test_the_batch_size_changes_nothing(ckpt: Path, photographs: Path) -> None:
    paths = sorted(photographs.rglob("*.png"))
    classifier = Classifier.load(ckpt, device="cpu")
    one, many = (classifier.predict(paths, batch_size=size) for size in (1, 5))
    for first, second in zip(one, many, strict=True):
        assert list(first.probabilities.values()) == pytest.approx(list(second.probabilities.values()), abs=1e-6)


def test_unreadable_images_are_named_all_at_once(ckpt: Path, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    classifier = Classifier.load(ckpt, device="cpu")
    sources = [tmp_path / "empty.jpg", photographs / "a" / "01.png", tmp_path / "absent.jpg"]
    with pytest.raises(DataError, match=r"(?s)empty.jpg.*absent.jpg"):
        classifier.predict(sources)
    rows = [row for chunk in classifier.scores(sources, batch_size=1) for row in chunk.rows]
    assert rows == [1]


class Counting:
    """A runtime that counts how many images are decoded and not yet computed."""

    def __init__(self) -> None:
        self.description = Description("multiclass", ("a", "b"), Preprocessing(size=(8, 8)))
        self.waiting = 0
        self.most = 0
        self.lock = threading.Lock()

    def decoded(self) -> None:
        with self.lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)

    def logits(self, images_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with self.lock:
            self.waiting -= len(images_BHWC)
        return images_BHWC[:, 0, 0, :2].astype(np.float32)


def test_decoding_runs_ahead_by_two_batches_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Counting()
    classifier = Classifier(runtime)

    def read(source: object) -> npt.NDArray[np.uint8]:
        runtime.decoded()
        return np.full((8, 8, 3), int(str(source)), dtype=np.uint8)

    monkeypatch.setattr(classifier, "read", read)
    chunks = list(classifier.scores([str(number) for number in range(100)], batch_size=8, num_workers=4))
    assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == list(range(100))
    assert np.concatenate([chunk.logits_BK for chunk in chunks])[:, 0].tolist() == list(range(100))
    assert runtime.most <= 24
