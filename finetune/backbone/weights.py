"""Where a backbone's weights come from: a package, the hub or its cache, a file of one's own, or nowhere.

``weights=pretrained`` prefers a package that carries the weights, then the local cache, then the hub; ``none`` draws
them; ``hf-hub:ID`` names a repository; anything else is a file (.safetensors, .pth, or a checkpoint of this toolkit, of
which the backbone is taken). Without a network the answer comes within seconds, because one short request replaces the
retries of the hub's client (47 s). Files are opened with ``weights_only=True``: opening one runs no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from finetune.backbone import hub, packaged
from finetune.errors import FinetuneError, WeightsError
from finetune.preprocessing import Preprocessing

WAYS_ON = (
    "Three ways on: backbone.weights=FILE with a .safetensors, .pth or .ckpt file; a populated cache "
    "(run once where there is a network and copy ~/.cache/huggingface here); or backbone.weights=none, from scratch. "
    "backbone=efficientnet_lite0 has its ImageNet weights in a package and needs no network"
)


class Source(NamedTuple):
    """Resolved weights, before any network is built."""

    description: str = ""
    """In words for the user; empty when the network starts untrained."""
    create: Mapping[str, Any] = MappingProxyType({})
    """What timm.create_model needs in order to load them itself; empty when ``state_dict`` holds them."""
    state_dict: dict[str, Tensor] | None = None
    preprocessing: Preprocessing | None = None
    """What the weights were trained with, where their source records it; None leaves it to timm's configuration."""
    asked: str = ""
    """The user's own words for messages, as in ``backbone.weights=./mine.pth``."""

    def failed(self, error: Exception) -> FinetuneError:
        """The error to raise when timm could not load what ``create`` promised."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return WeightsError(f"{self.asked}: {self.description} could not be loaded: {reason}. {WAYS_ON}")


def find_weights(name: str, weights: str) -> Source:
    """Resolve ``backbone.weights=weights`` for the network ``name``; nothing is built yet, so mistakes show at once."""
    asked = f"backbone.weights={weights}"
    if weights == "none":
        return Source()
    if weights == "pretrained":
        if packaged.has(name):
            state_dict, description, preprocessing = packaged.read(name)
            return Source(description, {}, state_dict, preprocessing, asked)
        create, description = hub.find_pretrained(name, WAYS_ON)
        return Source(description, create, asked=asked)
    if weights.startswith("hf-hub:"):
        create, description = hub.find_repository(name, weights.removeprefix("hf-hub:"), WAYS_ON)
        return Source(description, create, asked=asked)
    state_dict, trained_with = read_file(Path(weights).expanduser(), asked)
    return Source(str(weights), {}, state_dict, trained_with, asked)


def read_file(path: Path, asked: str) -> tuple[dict[str, Tensor], Preprocessing | None]:
    """Tensors of a weights file by name, and the preprocessing where the file is a checkpoint of ours."""
    if not path.exists():
        raise WeightsError(f"{asked} is not there; pretrained, none, hf-hub:ID or a file is expected")
    if path.is_dir():
        raise WeightsError(f"{asked} is a folder; a .safetensors, .pth or .ckpt file is expected")
    if path.suffix == ".ckpt":
        from finetune.checkpoint import read_checkpoint

        checkpoint = read_checkpoint(path)
        return _backbone_part(checkpoint.state_dict), checkpoint.preprocessing
    from timm.models import load_state_dict

    try:
        state_dict = load_state_dict(str(path), weights_only=True)
    except Exception as error:
        kind = "safetensors" if path.suffix == ".safetensors" else "torch"
        raise WeightsError(
            f"{asked} is no weights file: {kind} cannot read its {path.stat().st_size} bytes as plain tensors "
            f"({type(error).__name__}); a state dict saved by torch.save or safetensors is expected"
        ) from error
    found: dict[str, Any] = state_dict
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{asked} holds no tensors; a state dict saved by torch.save or safetensors is expected")
    return _backbone_part(tensors), None


def load_weights(module: nn.Module, source: Source, name: str) -> None:
    """Copy ``source.state_dict`` into ``module``; every tensor of the network must be there with its shape."""
    assert source.state_dict is not None
    given = _as_timm(source.state_dict, module)
    config: dict[str, Any] = dict(getattr(module, "pretrained_cfg", {}))
    classifiers = config.get("classifier") or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    wanted = module.state_dict()
    # an old file may lack BatchNorm's step counters, which nothing reads; the classifier stays behind
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    reshaped = [key for key in wanted if key in given and given[key].shape != wanted[key].shape]
    foreign = [key for key in given if key not in wanted and not key.startswith(tuple(f"{head}." for head in heads))]
    if missing or reshaped or foreign:
        examples = [f"{key} is missing" for key in missing[:2]]
        examples += [f"{key} is {tuple(given[key].shape)}, not {tuple(wanted[key].shape)}" for key in reshaped[:2]]
        examples += [f"{key} is unknown" for key in foreign[:2]]
        raise WeightsError(
            f"{source.asked} does not fit backbone.name={name}: of its {len(wanted)} tensors {len(missing)} are "
            f"missing from the file and {len(reshaped)} have another shape, and {len(foreign)} of the file are "
            f"unknown to it ({'; '.join(examples)}). Name the network that the file was saved from with backbone.name"
        )
    module.load_state_dict({key: given[key] for key in wanted if key in given}, strict=False)


def _backbone_part(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Only ``backbone.*`` without its prefix, when the file holds a backbone and a head side by side."""
    prefix = "backbone."
    inside = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    return inside or state_dict


def _as_timm(state_dict: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Let the family's own converter rename older keys and resize position embeddings, where timm has one."""
    import importlib

    converter = getattr(importlib.import_module(type(module).__module__), "checkpoint_filter_fn", None)
    if converter is None:
        return state_dict
    try:
        converted: dict[str, Tensor] = converter(dict(state_dict), module)
    except (KeyError, RuntimeError, AttributeError, ValueError):  # written for another family: compare it as it is
        return state_dict
    return converted
