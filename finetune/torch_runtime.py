"""A trained network as a runtime: preprocessed uint8 images in, uncalibrated scores out, like every exported artefact.

Full float32 on every device (TF32 off), so that a GPU, a CPU and an exported file agree; channels_last, because images
arrive that way and it costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from finetune.errors import ConfigError
from finetune.exporter.artefact import Description


class TorchRuntime:
    """``network`` maps normalised images B C H W to logits B K; it is moved to ``device`` and put into eval mode.

    ``backbone`` is the configuration of its backbone, where a checkpoint says it.
    """

    def __init__(
        self,
        network: nn.Module,
        description: Description,
        device: str = "cpu",
        backbone: dict[str, Any] | None = None,
    ) -> None:
        self.backbone = backbone
        self.device = resolve(device)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.description = description

    def logits(self, images_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits B K of images that are already resized and cropped, not yet normalised."""
        images_BCHW = (
            torch.from_numpy(np.require(images_BHWC, requirements=("C", "W"))).permute(0, 3, 1, 2).to(self.device)
        )
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
        with torch.inference_mode(), exact:
            logits_BK = self.network(self.description.preprocessing.normalize(images_BCHW))
        scores_BK: npt.NDArray[np.float32] = logits_BK.float().cpu().numpy()
        return scores_BK


def resolve(device: str) -> torch.device:
    """``auto``: the first GPU where there is one. Raises ``ConfigError`` when the device is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device} is not available here; expected auto, cpu or cuda") from error
    return found
