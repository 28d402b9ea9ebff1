"""What every tracing exporter needs: an example input, and silence about the tracer's own internals."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from finetune.exporter.artefact import Description

_CHATTY = ("timm", "onnxscript", "onnx_ir", "torch.onnx", "torch.export")


def example(description: Description) -> Tensor:
    """Two images, since tracing treats a batch of one as a constant; random, so that checks mean something."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, *description.preprocessing.size, generator=generator)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines below error from third-party tracers: nothing in them is the user's to act on."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
