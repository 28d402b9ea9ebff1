"""The composition root: from a checked configuration to parts, and from parts to a network.

The only caller of ``hydra.utils.instantiate``. A ``_target_`` must be an object that one of our own modules defines (not
one that it merely imports: ``finetune.checkpoint.torch.load`` is refused) or stand in the short list below. A target is
taken from the command line's configuration only, never from a checkpoint without this check.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from finetune.cache.features import FeatureCache
from finetune.checkpoint import Checkpoint
from finetune.config import CONF_DIR
from finetune.errors import CheckpointError, ConfigError, FinetuneError
from finetune.freeze.schedule import FreezeSchedule, without_head_phases
from finetune.network import Network
from finetune.stages import divide
from finetune.types import Backbone

FOREIGN_TARGETS = frozenset({"lightning.pytorch.Trainer"})
GROUPS = (
    *("backbone", "cache", "callback", "data", "exporter", "freeze", "head"),
    *("logger", "loss", "optimizer", "report", "scheduler", "transform"),
)


def part(node: DictConfig | dict[str, Any], *runtime: Any, **keywords: Any) -> Any:
    """Build the object that ``node`` describes; ``runtime`` arguments stand left of ``*`` in its signature.

    Raises:
        ConfigError: the target is not on the allow-list.
    """
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    assert isinstance(plain, dict)
    check_target(str(plain.get("_target_")))
    forbidden = [str(key) for key in plain if str(key).startswith("_") and key != "_target_"]
    if forbidden:
        raise ConfigError(f"{plain['_target_']}: {', '.join(forbidden)} may not be set; only _target_ is read")
    try:
        return instantiate(plain, *runtime, _recursive_=False, _convert_="all", **keywords)
    except InstantiationException as error:
        if isinstance(error.__cause__, FinetuneError):  # the part's own words, without Hydra's around them
            raise error.__cause__ from None
        if isinstance(error.__cause__, MisconfigurationException):  # hardware that is not there, options at odds
            raise ConfigError(f"{plain['_target_'].rpartition('.')[2]}: {error.__cause__}") from error
        raise


def check_target(target: str) -> None:
    """Raise ``ConfigError`` unless ``target`` is a public object defined in one of our part modules, or foreign and listed."""
    module_name, _, name = target.rpartition(".")
    pieces = module_name.split(".")
    if target in FOREIGN_TARGETS or pieces[0] in _user_packages():
        return
    ours = len(pieces) == 3 and pieces[0] == "finetune" and pieces[1] in GROUPS and not name.startswith("_")
    if ours and (Path(__file__).parent / pieces[1] / f"{pieces[2]}.py").is_file():
        found = getattr(importlib.import_module(module_name), name, None)
        if callable(found) and getattr(found, "__module__", None) == module_name:
            return
    raise ConfigError(
        f"_target_={target} is not allowed: a target is finetune.GROUP.NAME.OBJECT with a group of {', '.join(GROUPS)}, "
        f"or one of {', '.join(sorted(FOREIGN_TARGETS))}. Parts of your own package: +packages=[{pieces[0] or 'NAME'}]"
    )


def stored(group: str, node: dict[str, Any]) -> dict[str, Any]:
    """A part's configuration as a file stored it, once its target is one that ships in ``conf/GROUP``.

    Files come from anywhere, so they are held to a shorter list than the command line; your own packages count when
    the command line names them.

    Raises:
        CheckpointError: another target, or a value that is an interpolation.
    """
    target = str(node.get("_target_"))
    shipped = {str(OmegaConf.select(OmegaConf.load(path), "_target_")) for path in (CONF_DIR / group).glob("*.yaml")}
    if target not in shipped and target.partition(".")[0] not in _user_packages():
        raise CheckpointError(
            f"the file asks for {group}._target_={target}, which is no {group} that ships here; not run. If it is "
            f"yours, say +packages=[{target.partition('.')[0]}]"
        )
    if "${" in repr(node):
        raise CheckpointError(f"the file's {group} holds an interpolation (${{...}}); stored values are plain; not run")
    return node


def _user_packages() -> tuple[str, ...]:
    """Packages beside this one whose objects may be targets: ``+packages=[NAME]`` on this command line, nowhere else."""
    if not HydraConfig.initialized():
        return ()
    typed = HydraConfig.get().overrides.task
    parsed = OverridesParser.create().parse_overrides([text for text in typed if "packages=" in text])
    named = [override.value() for override in parsed if override.key_or_group == "packages"]
    return tuple(str(name) for value in named for name in (value if isinstance(value, list) else [value]))


def backbone(cfg: DictConfig | dict[str, Any], image_size: int) -> Backbone:
    """The feature extractor, its weights loaded, ready for images of ``image_size`` pixels."""
    built = part(cfg, image_size)
    assert isinstance(built, Backbone)
    return built


def network(backbone: Backbone, head_cfg: DictConfig | dict[str, Any], num_classes: int) -> Network:
    """Backbone and head joined, convolutions in channels-last order, which CPUs and GPUs run faster."""
    joined = Network(backbone.module, part(head_cfg, backbone.num_features, num_classes))
    return joined.to(memory_format=torch.channels_last)


def schedule(cfg: DictConfig, network: Network, max_epochs: int, *, solve_head: bool) -> FreezeSchedule:
    """The freeze schedule over the stages of ``network``; ``solve_head`` leaves out the phases that train only the head.

    Where nothing else is left to train, the schedule keeps its phases for a run of no epochs.
    """
    phases = OmegaConf.to_container(cfg.phases, resolve=True)
    assert isinstance(phases, list)
    left = without_head_phases(phases) if solve_head else phases
    epochs = max_epochs if left else 0
    built = part(cfg, divide(network), epochs, phases=left or phases, solve_head=solve_head)
    assert isinstance(built, FreezeSchedule)
    return built


def resolve_freeze(cfg: DictConfig, *, pretrained: bool) -> tuple[str, DictConfig]:
    """What ``freeze=auto`` means here, by name and configuration; any other schedule as it stands, with no name."""
    if "_target_" in cfg:
        return "", cfg
    name = "lp_ft" if pretrained else "none"
    return name, shipped("freeze", name)


def resolve_loss(cfg: DictConfig, task: str) -> DictConfig:
    """What ``loss=auto`` means for this kind of labels; any other loss as it stands.

    Raises:
        ConfigError: a loss for one class per image, and several are given.
    """
    if "_target_" not in cfg:
        return shipped("loss", "cross_entropy" if task == "multiclass" else "binary_cross_entropy")
    if task == "multilabel" and not str(cfg._target_).endswith("BinaryCrossEntropy"):
        raise ConfigError("this data set has several labels per image; take loss=auto or loss=binary_cross_entropy")
    return cfg


def feature_cache(cfg: DictConfig) -> FeatureCache | None:
    """Where frozen features are kept, or None with ``cache=none``."""
    cache = part(cfg.cache)
    return cache if isinstance(cache, FeatureCache) else None


def shipped(group: str, name: str) -> DictConfig:
    """An option of a group as its file has it."""
    loaded = OmegaConf.load(CONF_DIR / group / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    return loaded


def network_from_checkpoint(checkpoint: Checkpoint) -> Network:
    """The trained network of a checkpoint, in eval mode. Builds the architecture untrained and fills in the weights.

    Raises:
        CheckpointError: the weights do not fit the network that the checkpoint describes.
    """
    size_px = checkpoint.preprocessing.size[0]
    empty = backbone({**stored("backbone", checkpoint.config["backbone"]), "weights": "none"}, size_px)
    built = network(empty, stored("head", checkpoint.config["head"]), len(checkpoint.classes))
    wrong = built.load_state_dict(checkpoint.state_dict, strict=False)
    if wrong.missing_keys or wrong.unexpected_keys:
        raise CheckpointError(
            f"{checkpoint.path}: {len(wrong.missing_keys)} weights of {checkpoint.config['backbone']['name']} are missing "
            f"and {len(wrong.unexpected_keys)} do not belong to it; the file and its configuration do not fit each other"
        )
    return built.eval()
