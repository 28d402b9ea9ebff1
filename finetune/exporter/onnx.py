"""ONNX: one file for onnxruntime, TensorRT, OpenVINO, browsers and phones; the description travels inside the file.

When to use: for every deployment that is not PyTorch. ``preprocess=graph`` also builds resize, crop and normalisation
into the graph: raw uint8 RGB images of any size in, calibrated probabilities out, and no preprocessing to rewrite on
the other side (decode upright, that is all). ``precision=int8`` is static quantisation, calibrated on training images.
Cost: 3 to 10 s to export; int8 adds a pass over ``calibration_images``. Needs ``pip install 'finetune[onnx]'``.

Outputs: ``logits`` B K and ``probabilities`` B K (softmax or sigmoid of logits / temperature).
Source: https://onnx.ai, ``torch.onnx.export(dynamo=True)``, onnxruntime's quantisation guide.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from finetune.errors import CheckpointError, ConfigError, ExportError
from finetune.exporter.artefact import Description, Exportable, Exported, read_metadata
from finetune.exporter.fold import fold_batchnorm
from finetune.exporter.model_card import SERVE
from finetune.exporter.tracing import example, quiet

MODEL = "model.onnx"
MIN_OPSET = 18
"""The first with an antialiased Resize, and what PyTorch's exporter writes."""
_MAX_BYTES = 2**31 - 2**20
GRAPH_TOLERANCE = 2e-2
"""onnxruntime's and Pillow's resizing differ by single levels of 255, and a network amplifies them."""


class OnnxExporter:
    """Writes ``model.onnx``."""

    def __init__(
        self,
        *,
        opset: int = 18,
        precision: Literal["fp32", "fp16", "int8"] = "fp32",
        preprocess: Literal["none", "graph"] = "none",
        dynamic_size: bool = False,
        fold_batchnorm: bool = True,
        calibration: Literal["minmax", "entropy", "percentile"] = "minmax",
        calibration_images: int = 200,
        max_difference: float = 1e-4,
        max_accuracy_drop: float = 0.01,
    ) -> None:
        if opset < MIN_OPSET:
            raise ConfigError(f"exporter.opset={opset} is too old; expected {MIN_OPSET} or later (antialiased Resize)")
        if dynamic_size and preprocess == "graph":
            raise ConfigError(
                "exporter.dynamic_size=true and exporter.preprocess=graph exclude each other: the graph brings every "
                "image to one size; choose one of them"
            )
        if calibration_images < 1:
            raise ConfigError(f"exporter.calibration_images={calibration_images}; expected at least 1")
        self.opset = opset
        self.precision = precision
        self.preprocess = preprocess
        self.dynamic_size = dynamic_size
        self.fold_batchnorm = fold_batchnorm
        self.calibration = calibration
        self.calibration_images = calibration_images
        self.max_difference = max_difference
        self.max_accuracy_drop = max_accuracy_drop

    def __call__(self, source: Exportable, directory: Path) -> Exported:
        """Write ``directory/model.onnx``; raises ``ExportError`` when the network cannot be expressed."""
        onnx = _require("onnx")
        _require("onnxruntime")
        from finetune.exporter.onnx_graph import NORMALISED, RAW, add_preprocessing, add_probabilities

        description = source.description
        network, details = self._folded(source)
        model = self._traced(network, description)
        if self.precision == "fp16":
            model = _to_fp16(model)
        elif self.precision == "int8":
            from finetune.exporter.onnx_int8 import quantize

            images = list(self._calibration_batches(source))
            model = quantize(model, network, images, method=self.calibration)
        add_probabilities(
            model, task=description.task, temperature=description.temperature, num_classes=len(description.classes)
        )
        if self.preprocess == "graph":
            add_preprocessing(model, description.preprocessing)
        for key, value in description.to_text().items():
            model.metadata_props.add(key=key, value=value)
        model.producer_name = "finetune"
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, directory / MODEL)
        shutil.copyfile(SERVE, directory / "serve.py")

        height, width = description.preprocessing.size
        raw = {"name": RAW, "dtype": "uint8", "layout": "BHWC", "shape": ["batch", "height", "width", 3]}
        sides: list[Any] = ["height", "width"] if self.dynamic_size else [height, width]
        normalised = {"name": NORMALISED, "dtype": "float32", "layout": "BCHW", "shape": ["batch", 3, *sides]}
        outputs = [
            {"name": name, "dtype": "float32", "shape": ["batch", len(description.classes)]}
            for name in ("logits", "probabilities")
        ]
        details |= {"opset": self.opset, "precision": self.precision, "preprocess": self.preprocess}
        details |= {"input": raw if self.preprocess == "graph" else normalised, "outputs": outputs}
        exact = GRAPH_TOLERANCE if self.preprocess == "graph" else self.max_difference
        return Exported(
            details,
            max_difference=exact if self.precision == "fp32" else None,
            max_accuracy_drop=self.max_accuracy_drop if self.precision != "fp32" else None,
        )

    def _folded(self, source: Exportable) -> tuple[nn.Module, dict[str, Any]]:
        if not self.fold_batchnorm:
            return source.network, {}
        result = fold_batchnorm(source.network, example(source.description))
        return result.network, {"batchnorm_folded": f"{result.folded} of {result.total}"}

    def _traced(self, network: nn.Module, description: Description) -> Any:
        """The network alone as a ModelProto: ``images_BCHW`` float32 to ``logits``."""
        from torch.export import Dim

        shape: dict[int, Any] = {0: Dim("batch")}
        if self.dynamic_size:
            shape |= {2: Dim.AUTO, 3: Dim.AUTO}
        example_BCHW = example(description)
        with quiet():
            try:
                program = torch.onnx.export(
                    network.eval(),
                    (example_BCHW,),
                    dynamo=True,
                    opset_version=self.opset,
                    dynamic_shapes=(shape,),
                    input_names=["images_BCHW"],
                    output_names=["logits"],
                    verbose=False,
                    external_data=False,
                )
            except Exception as error:  # torch raises many kinds; each means that this network has no ONNX form
                reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                raise ExportError(
                    f"exporter=onnx: this network cannot be written as ONNX (opset {self.opset}): {reason}"
                ) from error
        assert program is not None
        model = program.model_proto
        if model.ByteSize() > _MAX_BYTES:
            raise ExportError(
                f"exporter=onnx: the model has {model.ByteSize():,} bytes and one ONNX file holds 2 GiB; use "
                "exporter=safetensors or a smaller backbone"
            )
        opset = next(entry.version for entry in model.opset_import if entry.domain == "")
        if opset != self.opset:
            raise ExportError(
                f"exporter.opset={self.opset} cannot be written for this network: PyTorch wrote {opset}; use that one"
            )
        if self.dynamic_size:
            _name_sides(model)
            _check_dynamic_size(model, network, example_BCHW)
        return model

    def _calibration_batches(self, source: Exportable) -> Iterator[npt.NDArray[np.float32]]:
        if source.calibration is None:
            raise ConfigError(
                "exporter.precision=int8 is calibrated on training images, and none were found beside the checkpoint; "
                "give data.path=DIR, or use exporter.precision=fp16"
            )
        for number, image_HWC in enumerate(source.calibration()):
            if number == self.calibration_images:
                break
            image_BCHW = torch.from_numpy(image_HWC.transpose(2, 0, 1).copy())[None]
            yield source.description.preprocessing.normalize(image_BCHW).numpy()


class OnnxRuntime:
    """An opened ``model.onnx`` on onnxruntime's CPU kernels."""

    def __init__(self, path: Path) -> None:
        onnxruntime = _require("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common base class for what a damaged file raises
            raise CheckpointError(f"{path} is not a model that onnxruntime opens ({error})") from error
        self.description = Description.from_text(self.session.get_modelmeta().custom_metadata_map)
        self.takes_raw_images = self.session.get_inputs()[0].type == "tensor(uint8)"
        """True when resize and crop are in the graph: give ``raw_logits`` whole images."""
        self._inner: Any = None
        self._path = path

    def logits(self, images_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits B K of resized and cropped images; with preprocessing in the graph, its network part is used."""
        images_BCHW = torch.from_numpy(np.ascontiguousarray(images_BHWC.transpose(0, 3, 1, 2)))
        normalised_BCHW = self.description.preprocessing.normalize(images_BCHW).numpy()
        session = self._network_session() if self.takes_raw_images else self.session
        logits_BK: npt.NDArray[np.float32] = session.run(["logits"], {"images_BCHW": normalised_BCHW})[0]
        return logits_BK

    def raw_logits(self, image_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits K of one whole decoded image, preprocessed by the graph."""
        logits_BK: npt.NDArray[np.float32] = self.session.run(["logits"], {"images": image_HWC[None]})[0]
        logits_K: npt.NDArray[np.float32] = logits_BK[0]
        return logits_K

    def _network_session(self) -> Any:
        """The same file without its first nodes."""
        if self._inner is None:
            onnx, onnxruntime = _require("onnx"), _require("onnxruntime")
            network = onnx.utils.Extractor(onnx.load(self._path)).extract_model(["images_BCHW"], ["logits"])
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            self._inner = onnxruntime.InferenceSession(
                network.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        return self._inner


def load(directory: Path) -> OnnxRuntime:
    """Open a directory that this exporter wrote, after its hashes were checked. Raises ``CheckpointError``."""
    read_metadata(directory)
    return OnnxRuntime(directory / MODEL)


def _require(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} is not installed; ONNX files need: pip install 'finetune[onnx]'") from error


def _to_fp16(model: Any) -> Any:
    """Half-precision weights and arithmetic; inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with quiet():
        half = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
        half.topological_sort()  # the converter appends the cast of the input at the end
    return half.model


def _name_sides(model: Any) -> None:
    """``height`` and ``width`` instead of the tracer's symbols; raises when a side turned out to be fixed."""
    sides = model.graph.input[0].type.tensor_type.shape.dim[2:]
    if not all(side.dim_param for side in sides):
        raise ExportError("exporter.dynamic_size=true: this network takes one size; say exporter.dynamic_size=false")
    names = {sides[0].dim_param: "height", sides[1].dim_param: "width"}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in names:
                side.dim_param = names[side.dim_param]


def _check_dynamic_size(model: Any, network: nn.Module, example_BCHW: torch.Tensor) -> None:
    """Compare with the network itself at another size; many transformers hold one position per patch."""
    onnxruntime = _require("onnxruntime")
    other_BCHW = nn.functional.interpolate(example_BCHW, scale_factor=1.5)
    size = " x ".join(str(side) for side in other_BCHW.shape[2:])
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        got_BK = session.run(["logits"], {"images_BCHW": other_BCHW.numpy()})[0]
        with torch.no_grad():
            expected_BK = network(other_BCHW).numpy()
        difference = float(np.abs(got_BK - expected_BK).max())
    except Exception as error:
        raise ExportError(
            f"exporter.dynamic_size=true: this network does not take images of {size} pixels ({error}); "
            "export it with exporter.dynamic_size=false"
        ) from error
    if not difference <= 1e-3 * max(1.0, float(np.abs(expected_BK).max())):
        raise ExportError(
            f"exporter.dynamic_size=true: at {size} pixels the graph differs from the network by {difference:.2g}; "
            "export it with exporter.dynamic_size=false"
        )
