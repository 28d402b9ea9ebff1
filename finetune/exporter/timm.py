"""A directory that timm opens alone, classes included: ``create_model("local-dir:DIR", pretrained=True)``.

When to use: to hand the model to anyone with timm, its validate.py and inference.py, or the Hugging Face hub. The head
must be one linear layer, because timm's architectures end in one; calibration stays in metadata.json, since timm has no
place for a temperature. ``push_to_hub=OWNER/NAME`` uploads the finished directory (needs a login: ``hf auth login``).
Cost: the weights' size on disk.

Source: ``timm.models.save_for_hf``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetune.errors import CheckpointError, ExportError
from finetune.exporter.artefact import Description, Exportable, Exported, read_metadata
from finetune.exporter.tracing import quiet
from finetune.preprocessing import Preprocessing
from finetune.torch_runtime import TorchRuntime

CONFIG = "config.json"
MODEL = "model.safetensors"


class TimmExporter:
    """Writes ``model.safetensors`` and ``config.json``."""

    def __init__(self, *, push_to_hub: str | None = None, max_difference: float = 1e-4) -> None:
        self.push_to_hub = push_to_hub
        self.max_difference = max_difference

    def __call__(self, source: Exportable, directory: Path) -> Exported:
        """Write the directory; raises ``ExportError`` when timm has no architecture for this head."""
        import timm

        description = source.description
        model = _whole_model(source)
        with quiet():
            timm.models.save_for_hf(
                model,
                str(directory),
                model_config={"label_names": list(description.classes)},
                model_args=_model_args(source),
                safe_serialization=True,
                data_config=_data_config(description.preprocessing),
            )
        config = json.loads((directory / CONFIG).read_text())
        config["finetune"] = {key: description.to_dict()[key] for key in ("task", "temperature", "thresholds")}
        config["finetune"]["background"] = list(description.preprocessing.background)
        (directory / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        height, width = description.preprocessing.size
        details = {
            "input": {"name": "x", "dtype": "float32", "layout": "BCHW", "shape": ["batch", 3, height, width]},
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", len(description.classes)]}],
        }
        return Exported(details, max_difference=self.max_difference)

    def publish(self, directory: Path) -> str | None:
        """Upload a finished directory when ``push_to_hub`` names a repository; the address, or None."""
        if self.push_to_hub is None:
            return None
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        hub = HfApi(library_name="finetune")
        try:
            address = hub.create_repo(self.push_to_hub, exist_ok=True)
            hub.upload_folder(repo_id=address.repo_id, folder_path=directory)
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise ExportError(
                f"exporter.push_to_hub={self.push_to_hub}: the upload failed ({error}); the artefact is complete in "
                f"{directory}. Log in with `hf auth login`, then `hf upload {self.push_to_hub} {directory}`"
            ) from error
        return str(address)


def load(directory: Path) -> TorchRuntime:
    """Open a directory that this exporter wrote, with timm's own loader, after its hashes were checked."""
    import timm
    from timm.data.config import resolve_data_config

    read_metadata(directory)
    with quiet():
        try:
            model = timm.create_model(f"local-dir:{directory}", pretrained=True).eval()
        except Exception as error:  # timm and safetensors raise many kinds on a foreign directory
            raise CheckpointError(f"timm cannot open {directory} ({error})") from error
    config = json.loads((directory / CONFIG).read_text())
    own = config.get("finetune", {})
    data = resolve_data_config({}, model=model)
    preprocessing = Preprocessing(
        size=tuple(data["input_size"][1:]),
        crop_pct=data["crop_pct"],
        crop_mode=data["crop_mode"],
        interpolation=data["interpolation"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        background=tuple(own.get("background", (255, 255, 255))),
    )
    labels = {"classes": config.get("label_names"), "preprocessing": preprocessing.to_dict()}
    return TorchRuntime(model, Description.from_dict({**own, **labels}))


def _whole_model(source: Exportable) -> nn.Module:
    """Timm's architecture with its own classifier, filled with our backbone and head."""
    import timm

    layer = linear_layer(source.network.get_submodule("head"))
    name = source.backbone["name"]
    if layer is None:
        head = source.head.get("_target_", type(source.network.get_submodule("head")).__name__).rpartition(".")[2]
        raise ExportError(
            f"exporter=timm: timm's architectures end in one linear layer, and this model ends in {head}; use "
            "exporter=onnx or exporter=safetensors, or train with head=linear"
        )
    if not timm.model_entrypoint(name.partition(".")[0]).__module__.startswith("timm."):
        raise ExportError(f"exporter=timm: {name} is no network of timm's; use exporter=onnx or exporter=safetensors")
    model: nn.Module = timm.create_model(name, num_classes=layer.out_features, **_model_args(source)).eval()
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear) or classifier.weight.shape != layer.weight.shape:
        raise ExportError(f"exporter=timm: {name} has no linear classifier of its own; use exporter=onnx")
    with torch.no_grad():
        missing, unexpected = model.load_state_dict(source.network.get_submodule("backbone").state_dict(), strict=False)
        classifier.weight.copy_(layer.weight)
        if getattr(classifier, "bias", None) is not None:
            classifier.bias.copy_(
                torch.zeros(layer.out_features) if getattr(layer, "bias", None) is None else layer.bias
            )
    own = {
        f"{path}.{key}" for path, module in model.named_modules() if module is classifier for key in ("weight", "bias")
    }
    if unexpected or set(missing) - own:
        raise ExportError(
            f"exporter=timm: the weights do not fit timm's {name} (missing {sorted(set(missing) - own)[:3]}, "
            f"unexpected {unexpected[:3]}); use exporter=onnx or exporter=safetensors"
        )
    return model


def linear_layer(head: nn.Module) -> nn.Linear | None:
    """The one linear layer that ``head`` is in eval mode (dropout does nothing there); None when it is more."""
    layers = [module for module in head.modules() if not any(module.children())]
    idle = nn.Dropout | nn.Identity | nn.Flatten
    linear = [layer for layer in layers if not isinstance(layer, idle)]
    own = [name for name, _ in head.named_parameters()]
    if len(linear) == 1 and isinstance(linear[0], nn.Linear) and len(own) == len(list(linear[0].parameters())):
        return linear[0]
    return None


def _model_args(source: Exportable) -> dict[str, Any]:
    """What changes the architecture: a ViT's position embedding is made for one image size."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(source.backbone["name"])
    fixed = config is not None and config.fixed_input_size
    return {"img_size": source.description.preprocessing.size[0]} if fixed else {}


def _data_config(preprocessing: Preprocessing) -> dict[str, Any]:
    return {
        "input_size": (3, *preprocessing.size),
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
    }
