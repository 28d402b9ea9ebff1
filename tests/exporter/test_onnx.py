"""ONNX files: read by others, and by runtimes that are not onnxruntime."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from PIL import Image

from finetune.classifier import Classifier
from finetune.data.image import read_image
from finetune.errors import ConfigError, ExportError
from finetune.exporter.onnx import OnnxExporter
from finetune.exporting import exportable, read_model


@pytest.fixture(scope="module")
def graph(run_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One artefact with preprocessing in the graph."""
    from hydra import compose, initialize_config_dir

    from finetune.config import CONF_DIR
    from finetune.exporting import export

    target = tmp_path_factory.mktemp("onnx") / "graph"
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        overrides = [f"ckpt={run_of()}", f"output={target}", "exporter.preprocess=graph", "latency_runs=0"]
        return export(compose("export", overrides=overrides)).directory


def test_file_states_its_opset_and_carries_the_description(graph: Path) -> None:
    model = onnx.load(graph / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18
    texts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert texts["classes"] == ["amber", "blue", "coral"]
    assert texts["preprocessing"]["size"] == [64, 64]
    assert texts["temperature"] == 1.5
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_onnx_own_reference_evaluator_agrees_from_the_normalised_image_on(graph: Path) -> None:
    network = onnx.utils.Extractor(onnx.load(graph / "model.onnx")).extract_model(["images_BCHW"], ["probabilities"])
    images_BCHW = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    expected = onnxruntime.InferenceSession(network.SerializeToString()).run(None, {"images_BCHW": images_BCHW})[0]
    got = ReferenceEvaluator(network).run(None, {"images_BCHW": images_BCHW})[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_every_exif_orientation_gives_what_our_loader_gives(
    graph: Path, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    """The client turns the image upright and gives it whole; resize, crop and normalisation are the graph's."""
    from PIL import ImageOps

    picture = Image.open(next((run_of().parent.parent / "images" / "val" / "amber").iterdir())).resize((90, 61))
    session = onnxruntime.InferenceSession(graph / "model.onnx")
    classifier = Classifier.load(run_of())
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        path = tmp_path / f"{orientation}.png"
        picture.save(path, exif=exif)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        assert upright.shape[:2] == ((61, 90) if orientation < 5 else (90, 61))
        got_K = session.run(["probabilities"], {"images": upright[None]})[0][0]
        expected = classifier.predict([path])[0].probabilities
        np.testing.assert_allclose(got_K, list(expected.values()), atol=2e-2)


def test_raw_images_of_twenty_odd_sizes_give_what_our_loader_gives(
    graph: Path, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(graph / "model.onnx")
    classifier = Classifier.load(run_of())
    source = Image.open(next((run_of().parent.parent / "images" / "val" / "blue").iterdir()))
    sizes = [(1, 1), (1, 90), (3000, 40), *((int(h), int(w)) for h, w in np.exp(rng.uniform(2.5, 7, (17, 2))))]
    worst = 0.0
    for number, (height, width) in enumerate(sizes):
        path = tmp_path / f"{number}.jpg"
        source.resize((width, height)).save(path, quality=95)
        got_K = session.run(["probabilities"], {"images": read_image(path)[None]})[0][0]
        expected_K = np.array(list(classifier.predict([path])[0].probabilities.values()))
        worst = max(worst, float(np.abs(got_K - expected_K).max()))
        assert got_K.argmax() == expected_K.argmax(), (height, width)
    assert worst < 2e-2


def test_network_inside_a_graph_artefact_equals_the_model(graph: Path, run_of: Callable[..., Path]) -> None:
    images_BHWC = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    ours, theirs = Classifier.load(run_of()).runtime, Classifier.load(graph).runtime
    np.testing.assert_allclose(theirs.logits(images_BHWC), ours.logits(images_BHWC), atol=1e-4)


def test_batch_size_is_free(graph: Path) -> None:
    runtime = Classifier.load(graph).runtime
    images_BHWC = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)
    alone = np.concatenate([runtime.logits(image[None]) for image in images_BHWC])
    np.testing.assert_allclose(runtime.logits(images_BHWC), alone, atol=1e-4)


def test_int8_is_calibrated_and_smaller(run_of: Callable[..., Path], export_of: Callable[..., Any]) -> None:
    artefact = export_of(run_of(), "exporter.precision=int8", "exporter.calibration_images=20")
    model = onnx.load(artefact.directory / "model.onnx")
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) > 10
    assert artefact.metadata["speed"]["artefact_mib"] < 0.4 * artefact.metadata["speed"]["model_mib"]
    assert artefact.metadata["parity"]["accuracy_artefact"] >= artefact.metadata["parity"]["accuracy_model"] - 0.01


def test_int8_without_training_images_says_what_to_give(run_of: Callable[..., Path], tmp_path: Path) -> None:
    source = exportable(read_model(str(run_of())), None)
    with pytest.raises(ConfigError, match=r"calibrated on training images.*data\.path=DIR"):
        OnnxExporter(precision="int8")(source, tmp_path)


def test_size_may_be_free_for_a_convolutional_network(
    run_of: Callable[..., Path], export_of: Callable[..., Any]
) -> None:
    artefact = export_of(run_of(), "exporter.dynamic_size=true")
    session = onnxruntime.InferenceSession(artefact.directory / "model.onnx")
    assert session.get_inputs()[0].shape[2:] == ["height", "width"]
    assert session.run(["logits"], {"images_BCHW": np.zeros((1, 3, 96, 160), dtype=np.float32)})[0].shape == (1, 3)


class OneSize(torch.nn.Module):
    """As many transformers: one weight per position."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3 * 64 * 64, 3)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.linear(images_BCHW.flatten(1))


def test_network_of_one_size_is_not_exported_with_a_free_one(run_of: Callable[..., Path], tmp_path: Path) -> None:
    source = dataclasses.replace(exportable(read_model(str(run_of())), None), network=OneSize())
    with pytest.raises(ExportError, match=r"cannot be written|exporter\.dynamic_size=false"):
        OnnxExporter(dynamic_size=True)(source, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, r"exporter\.opset=17 is too old; expected 18"),
        ({"dynamic_size": True, "preprocess": "graph"}, "exclude each other"),
        ({"calibration_images": 0}, "calibration_images=0"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OnnxExporter(**options)
