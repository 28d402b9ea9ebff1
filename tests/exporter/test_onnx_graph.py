"""Preprocessing inside an ONNX graph against Pillow's, which is the definition."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from finetune.errors import ConfigError
from finetune.exporter.onnx_graph import add_preprocessing, add_probabilities
from finetune.preprocessing import Preprocessing

SIZES = [(64, 64), (1, 1), (1, 50), (50, 1), (3, 700), (37, 91), (91, 37), (63, 65), (65, 63), (100, 100), (73, 73)]
SIZES += [(128, 32), (200, 333), (333, 200), (480, 640), (641, 479), (720, 1280), (1999, 64), (1024, 1023), (257, 258)]


def session_of(preprocessing: Preprocessing) -> onnxruntime.InferenceSession:
    """A graph whose network is the identity: what comes out is what a network would see."""
    shape = ["batch", 3, *preprocessing.size]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images_BCHW"], ["logits"])],
        "identity",
        [helper.make_tensor_value_info("images_BCHW", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    add_preprocessing(model, preprocessing)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def levels(preprocessing: Preprocessing, session: onnxruntime.InferenceSession, image_HWC: np.ndarray) -> np.ndarray:
    """Difference from Pillow in levels of 255, per pixel."""
    got_CHW = session.run(["logits"], {"images": image_HWC[None]})[0][0]
    mean, std = (
        np.array(values, dtype=np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
    )
    got_HWC = ((got_CHW * std + mean) * 255).transpose(1, 2, 0)
    return np.abs(got_HWC - preprocessing.resize_crop(image_HWC).astype(np.float32))


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(size=(64, 64)),
        Preprocessing(size=(64, 48), crop_pct=0.95),
        Preprocessing(size=(48, 64), crop_pct=1.0, crop_mode="squash", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
        Preprocessing(size=(37, 37), crop_pct=0.9),
    ],
)
def test_bicubic_graph_is_within_one_level_of_pillow_at_twenty_odd_sizes(preprocessing: Preprocessing) -> None:
    session = session_of(preprocessing)
    rng = np.random.default_rng(0)
    for size in SIZES:
        difference = levels(preprocessing, session, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        assert difference.max() <= 1.01, size
        assert (difference > 0.01).mean() < 0.01, size


def test_bilinear_graph_equals_pillow_but_for_the_border() -> None:
    preprocessing = Preprocessing(size=(64, 64), crop_pct=1.0, interpolation="bilinear")
    session = session_of(preprocessing)
    rng = np.random.default_rng(0)
    for size in SIZES:
        difference = levels(preprocessing, session, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        assert difference[2:-2, 2:-2].max() <= 1.01, size
        assert difference.max() < 16, size


def test_images_of_a_batch_do_not_mix() -> None:
    preprocessing = Preprocessing(size=(32, 32))
    session = session_of(preprocessing)
    images_BHWC = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    together = session.run(["logits"], {"images": images_BHWC})[0]
    alone = np.concatenate([session.run(["logits"], {"images": image[None]})[0] for image in images_BHWC])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("interpolation", ["lanczos", "nearest"])
def test_kernel_that_onnx_does_not_have_is_refused(interpolation: str) -> None:
    with pytest.raises(ConfigError, match=rf"interpolation={interpolation}.*exporter\.preprocess=none"):
        session_of(dataclasses.replace(Preprocessing(), interpolation=interpolation))


def probabilities_of(task: str, logits: list[float]) -> np.ndarray:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["logits"])], "identity", [value], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    add_probabilities(model, task=task, temperature=2.0, num_classes=2)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"x": np.array([logits], dtype=np.float32)})[0][0]


def test_probabilities_are_the_softmax_of_logits_over_the_temperature() -> None:
    # 2 ln 3 over 2 is ln 3: odds of three to one
    np.testing.assert_allclose(probabilities_of("multiclass", [2 * np.log(3.0), 0.0]), [0.75, 0.25], atol=1e-6)


def test_multilabel_probabilities_are_sigmoids() -> None:
    np.testing.assert_allclose(probabilities_of("multilabel", [2 * np.log(3.0), 0.0]), [0.75, 0.5], atol=1e-6)
