"""A network's named, ordered stages: what a freeze schedule and layer-wise learning rates address.

For ResNet-50 these are stem, layer1, layer2, layer3, layer4 and head. The division of a backbone is timm's own
(``group_matcher(coarse=True)``); the names come from the parameters' common prefix. Every parameter, every buffer and
every module belongs to exactly one stage.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain

from timm.models._manipulate import group_with_matcher
from torch import nn

from finetune.errors import ConfigError

HEAD = "head"
NORM_SUFFIX = ":norm"


@dataclass(frozen=True)
class Stage:
    """One stage of a network; names are relative to the network (``backbone.layer1.0.conv1.weight``)."""

    name: str
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    modules: tuple[str, ...]
    norm_parameters: tuple[str, ...]


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` is a normalisation layer (batch, layer, group, instance, RMS) with parameters of its own."""
    name = type(module).__name__.lower().replace("normfree", "")  # NFNets have none
    return "norm" in name and any(True for _ in module.parameters(recurse=False))


def divide(network: nn.Module) -> tuple[Stage, ...]:
    """The stages of a network with the children ``backbone`` (a timm model) and ``head``, from input to output.

    Raises:
        ConfigError: the backbone does not say how it divides, or a tensor falls outside every stage.
    """
    backbone = network.get_submodule("backbone")
    matcher = getattr(backbone, "group_matcher", None)
    if not callable(matcher):
        raise ConfigError(
            f"the backbone {type(backbone).__name__} has no group_matcher, so it cannot be divided into stages; "
            "take a timm model (backbone.name=NAME), or give yours a group_matcher as timm's models have"
        )
    groups = _tensor_groups(backbone, matcher(coarse=True))
    names = _stage_names(groups)
    stage_of = {f"backbone.{tensor}": name for name, tensors in zip(names, groups, strict=True) for tensor in tensors}
    stage_of |= {name: HEAD for name, _ in _tensors(network) if name.startswith("head.")}

    tensors = [name for name, _ in _tensors(network)]
    outside = [name for name in tensors if name not in stage_of]
    if outside:
        raise ConfigError(f"{len(outside)} tensors belong to no stage, the first is {outside[0]!r}")
    return _build(network, [*names, HEAD], stage_of)


def select(pattern: str, stages: tuple[Stage, ...]) -> tuple[str, ...]:
    """Names of the stages that ``pattern`` means: a name, a shell pattern, or ``@N``, the N-th backbone stage.

    ``@0`` is the first stage of the backbone, ``@-1`` the last one below the head. A suffix ``:norm`` is the caller's.

    Raises:
        ConfigError: nothing matches; the message lists the stages.
    """
    names = [stage.name for stage in stages]
    bare = pattern.removesuffix(NORM_SUFFIX)
    if bare.startswith("@"):
        below_head = names[:-1]
        try:
            return (below_head[int(bare[1:])],)
        except (ValueError, IndexError):
            matched: tuple[str, ...] = ()
    else:
        matched = tuple(name for name in names if fnmatchcase(name, bare))
    if not matched:
        raise ConfigError(f"freeze: {pattern!r} matches no stage; the stages are {', '.join(names)}")
    return matched


def _tensors(module: nn.Module) -> list[tuple[str, object]]:
    return list(chain(module.named_parameters(), module.named_buffers()))


def _tensor_groups(backbone: nn.Module, matcher: object) -> list[list[str]]:
    grouped = group_with_matcher(iter(_tensors(backbone)), matcher, reverse=False)  # type: ignore[arg-type]
    return [list(grouped[key]) for key in sorted(grouped)]


def _stage_names(groups: list[list[str]]) -> list[str]:
    """Name groups by their most common module prefix: one component where that is unique to the group, else two."""
    first_components = Counter(first for group in groups for first in {name.split(".")[0] for name in group})
    names: list[str] = []
    for position, group in enumerate(groups):
        prefixes = Counter(
            first if first_components[first] == 1 else ".".join(name.split(".")[:2])
            for name in group
            for first in [name.split(".")[0]]
        )
        name = "stem" if position == 0 else prefixes.most_common(1)[0][0]
        name = "neck" if name == HEAD else name  # a final norm that timm keeps in a module called head
        names.append(name if name not in names else f"{name}.{position}")
    return names


def _build(network: nn.Module, names: list[str], stage_of: dict[str, str]) -> tuple[Stage, ...]:
    modules: dict[str, list[str]] = {name: [] for name in names}
    norms: dict[str, list[str]] = {name: [] for name in names}
    current = names[0]
    for module_name, module in network.named_modules():
        prefix = f"{module_name}." if module_name else ""
        inside = {stage_of[prefix + tensor] for tensor, _ in _tensors(module)}
        if len(inside) == 1:
            current = inside.pop()
        elif inside:
            continue  # a container that spans stages has no mode of its own to freeze
        if module_name == "head" or module_name.startswith("head."):
            current = HEAD
        # a module without tensors (activation, pooling, dropout) stands with what comes before it
        modules[current].append(module_name)
        if is_norm(module):
            norms[current].extend(prefix + name for name, _ in module.named_parameters(recurse=False))
    parameters = [name for name, _ in network.named_parameters()]
    buffers = [name for name, _ in network.named_buffers()]
    return tuple(
        Stage(
            name,
            tuple(p for p in parameters if stage_of[p] == name),
            tuple(b for b in buffers if stage_of[b] == name),
            tuple(modules[name]),
            tuple(norms[name]),
        )
        for name in names
    )
