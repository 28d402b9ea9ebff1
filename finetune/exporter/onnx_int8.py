"""Static int8 quantisation of an ONNX network, calibrated on training images by onnxruntime.

Weights are int8 per output channel, activations uint8 with ranges observed on real images; the graph stays in the
standard QDQ form (QuantizeLinear, DequantizeLinear). Weights of convolutions and linear layers are then rounded so that
the layer's output changes least (int8_rounding.py). When to use: CPUs with VNNI and accelerators; on a CPU without it
int8 is slower than fp32. Cost: one pass over the calibration images (``entropy`` and ``percentile`` also keep their
histograms). Networks with unbounded activations lose most; the exporter's parity check states how much.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from torch import nn

from finetune.exporter.int8_rounding import round_weights

_QUANTIZED = "_quantized"
"""What onnxruntime appends to a weight's name; its scales stand under ``_scale``."""


def quantize(
    model: onnx.ModelProto, network: nn.Module, images: Sequence[npt.NDArray[np.float32]], *, method: str
) -> onnx.ModelProto:
    """``model`` in int8, ranges chosen by ``method`` (minmax, entropy, percentile) on ``images`` 1 C H W.

    ``network`` is what ``model`` was traced from, with the same names: its layers decide how weights are rounded.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime.quantization logs to the root logger and prints its progress
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            whole, prepared, quantized = (
                Path(folder) / f"{stage}.onnx" for stage in ("whole", "prepared", "quantized")
            )
            onnx.save(model, whole)
            quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(quantized),
                _Reader(iter(images)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=methods[method],
            )
            result = onnx.load(quantized)
    finally:
        root.setLevel(level)
    _round_better(result, network, images)
    return result


def _round_better(model: onnx.ModelProto, network: nn.Module, images: Sequence[npt.NDArray[np.float32]]) -> None:
    """Replace the weights' nearest-step rounding, where a weight of ``network`` is found under its name."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [name.removesuffix(_QUANTIZED) for name in tensors if name.endswith(f".weight{_QUANTIZED}")]
    scales = {name: numpy_helper.to_array(tensors[f"{name}_scale"]) for name in names if f"{name}_scale" in tensors}
    for name, steps in round_weights(network, images, scales).items():
        old = tensors[name + _QUANTIZED]
        if tuple(old.dims) == steps.shape:
            old.CopyFrom(numpy_helper.from_array(steps, old.name))


class _Reader:
    """What onnxruntime asks for its calibration inputs."""

    def __init__(self, batches: Iterator[npt.NDArray[np.float32]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images_BCHW": batch}
