"""A traced program as a runtime: TorchScript and torch.export modules take no device, memory format or ``eval()``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.exporter.artefact import Description


class GraphRuntime:
    """``module`` maps normalised images B C H W to logits B K, on the CPU."""

    def __init__(self, module: Callable[[Tensor], Tensor], description: Description) -> None:
        self.module = module
        self.description = description

    def logits(self, images_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits B K of resized and cropped images."""
        images_BCHW = torch.from_numpy(np.ascontiguousarray(images_BHWC.transpose(0, 3, 1, 2)))
        with torch.no_grad():
            logits_BK = self.module(self.description.preprocessing.normalize(images_BCHW))
        return np.asarray(logits_BK.float().numpy(), dtype=np.float32)
