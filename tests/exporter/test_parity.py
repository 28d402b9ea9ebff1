"""The comparison between model and artefact: figures worked by hand, and artefacts that must be rejected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.errors import ExportError
from finetune.exporter.parity import check, compare
from finetune.metrics.predictions import Predictions


def predictions(logits: list[list[float]], targets: list[Any], classes: tuple[str, ...] = ("a", "b")) -> Predictions:
    paths = tuple(f"{row}.png" for row in range(len(logits)))
    return Predictions(paths, np.array(logits, dtype=np.float32), np.array(targets), classes)


def test_figures_are_those_worked_by_hand() -> None:
    model = predictions([[np.log(3), 0], [0, np.log(3)], [np.log(9), 0]], [0, 1, 1])  # .75/.25, .25/.75, .9/.1
    artefact = predictions([[np.log(3), 0], [np.log(3), 0], [np.log(9), 0]], [0, 1, 1])
    parity = compare(model, artefact, tolerance=1e-4)
    assert parity.images == 3
    assert parity.max_difference == pytest.approx(0.5)
    assert parity.mean_difference == pytest.approx(1 / 6)
    assert parity.agreement == pytest.approx(2 / 3)
    assert parity.changed == 1
    assert parity.accuracy_model == pytest.approx(2 / 3)
    assert parity.accuracy_artefact == pytest.approx(1 / 3)
    assert parity.accuracy_drop == pytest.approx(1 / 3)


def test_classes_are_matched_by_name_not_by_place() -> None:
    model = predictions([[2.0, 0.0]], [0], ("a", "b"))
    assert compare(model, predictions([[0.0, 2.0]], [0], ("b", "a")), tolerance=1e-4).max_difference == 0
    assert compare(model, predictions([[2.0, 0.0]], [0], ("b", "a")), tolerance=1e-4).changed == 1


def test_tie_of_the_model_within_the_tolerance_is_no_change() -> None:
    model, artefact = predictions([[1e-5, 0.0]], [0]), predictions([[0.0, 1e-5]], [0])
    parity = compare(model, artefact, tolerance=1e-4)
    assert (parity.agreement, parity.changed) == (0.0, 0)


def test_other_classes_are_refused() -> None:
    with pytest.raises(ExportError, match="other classes than the model: b, c"):
        compare(predictions([[1.0, 0.0]], [0], ("a", "b")), predictions([[1.0, 0.0]], [0], ("a", "c")), tolerance=1.0)


def test_scores_that_are_not_finite_are_a_difference() -> None:
    parity = compare(predictions([[1.0, 0.0]], [0]), predictions([[np.nan, 0.0]], [0]), tolerance=1e-4)
    with pytest.raises(ExportError, match="differ by up to inf"):
        check(parity, max_difference=1e-4, max_accuracy_drop=None, title="x")


def test_multilabel_counts_every_yes_and_no() -> None:
    model = predictions([[2.0, -2.0], [2.0, 2.0]], [[1, 0], [1, 1]])
    artefact = predictions([[2.0, -2.0], [2.0, -2.0]], [[1, 0], [1, 1]])
    parity = compare(model, artefact, tolerance=1e-4)
    assert (parity.agreement, parity.changed) == (0.75, 1)
    assert (parity.accuracy_model, parity.accuracy_artefact) == (1.0, 0.75)


def test_loss_of_accuracy_is_bounded_and_named() -> None:
    model, artefact = predictions([[1.0, 0.0]] * 4, [0] * 4), predictions([[1.0, 0.0]] * 3 + [[0.0, 1.0]], [0] * 4)
    parity = compare(model, artefact, tolerance=0.0)
    check(parity, max_difference=None, max_accuracy_drop=0.25, title="x")
    with pytest.raises(ExportError, match=r"accuracy falls from 1\.0000 to 0\.7500 .*exporter\.max_accuracy_drop=0\.2"):
        check(parity, max_difference=None, max_accuracy_drop=0.2, title="x")


MUTATIONS: dict[str, Callable[[Any], None]] = {}


def mutation(function: Callable[[Any], None]) -> Callable[[Any], None]:
    MUTATIONS[function.__name__] = function
    return function


@mutation
def swapped_channels(model: Any) -> None:
    """The graph reads BGR."""
    from onnx import helper, numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "order"))
    model.graph.node.insert(0, helper.make_node("Gather", ["images_BCHW", "order"], ["bgr"], axis=1))
    for node in list(model.graph.node)[1:]:
        for number, name in enumerate(node.input):
            if name == "images_BCHW":
                node.input[number] = "bgr"


@mutation
def another_mean(model: Any) -> None:
    _edit(model, "preprocessing", lambda spec: {**spec, "mean": [0.4, 0.5, 0.6]})


@mutation
def another_class_order(model: Any) -> None:
    _edit(model, "classes", lambda classes: classes[::-1])


@mutation
def another_temperature(model: Any) -> None:
    _edit(model, "temperature", lambda value: value * 2)


@mutation
def another_crop(model: Any) -> None:
    _edit(model, "preprocessing", lambda spec: {**spec, "crop_pct": 0.6})


@mutation
def another_weight(model: Any) -> None:
    from onnx import numpy_helper

    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "head.linear.bias")
    values = numpy_helper.to_array(weight).copy()
    values[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def _edit(model: Any, key: str, change: Callable[[Any], Any]) -> None:
    import json

    entry = next(entry for entry in model.metadata_props if entry.key == key)
    entry.value = json.dumps(change(json.loads(entry.value)))


@pytest.fixture(scope="module")
def written(run_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A sound export, made once: its directory and what the exporter said."""
    from finetune.exporter.onnx import OnnxExporter
    from finetune.exporting import exportable, read_model

    directory = tmp_path_factory.mktemp("written")
    return directory, OnnxExporter()(exportable(read_model(str(run_of())), None), directory)


@pytest.mark.parametrize("name", ["nothing", *sorted(MUTATIONS)])
def test_export_that_differs_from_the_model_is_rejected_and_leaves_nothing(
    name: str,
    written: tuple[Path, Any],
    run_of: Callable[..., Path],
    export_of: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnx

    from finetune.exporter.onnx import OnnxExporter

    sound, exported = written

    def mutated(_self: OnnxExporter, _source: Any, directory: Path) -> Any:
        model = onnx.load(sound / "model.onnx")
        if name != "nothing":
            MUTATIONS[name](model)
        onnx.save(model, directory / "model.onnx")
        return exported

    monkeypatch.setattr(OnnxExporter, "__call__", mutated)
    if name == "nothing":
        assert export_of(run_of()).metadata["parity"]["agreement"] == 1.0
        return
    with pytest.raises(ExportError, match="does not behave as the model did"):
        export_of(run_of())
    assert list(tmp_path.iterdir()) == []
