"""Parameter groups for every parameter of the network, from the first step on, frozen or not.

Groups are named ``stage`` and ``stage.no_decay`` and never change during a run, so that optimizer and checkpoint always
fit each other (adding a group at an unfreeze breaks schedulers: pytorch-lightning #12141, #8720). Norms, biases and
whatever the backbone lists in ``no_weight_decay()`` are not decayed. The learning rate falls by ``layer_decay`` from
stage to stage below the head (Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT).
"""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import nn

from finetune.stages import HEAD, Stage

Group = dict[str, Any]
"""``name``, ``params``, ``weight_decay`` and ``lr_scale`` (the layer decay's factor on the learning rate)."""


def rate_of(lr: float | Literal["auto"]) -> float:
    """The rate as a number; NaN, which no optimizer takes, until ``finetune.lr_range`` has found it."""
    return math.nan if lr == "auto" else lr


def parameter_groups(
    network: nn.Module, stages: tuple[Stage, ...], weight_decay: float, layer_decay: float
) -> list[Group]:
    """One or two groups per stage, from input to output."""
    parameters = dict(network.named_parameters())
    undecayed = _undecayed(network)
    groups: list[Group] = []
    for depth_below_head, stage in zip(range(len(stages) - 1, -1, -1), stages, strict=True):
        for suffix, names in (
            ("", [name for name in stage.parameters if not _is_undecayed(name, parameters[name], undecayed)]),
            (".no_decay", [name for name in stage.parameters if _is_undecayed(name, parameters[name], undecayed)]),
        ):
            if names:
                groups.append(
                    {
                        "name": stage.name + suffix,
                        "params": [parameters[name] for name in names],
                        "weight_decay": 0.0 if suffix else weight_decay,
                        "lr_scale": 1.0 if stage.name == HEAD else layer_decay**depth_below_head,
                    }
                )
    return groups


def _undecayed(network: nn.Module) -> frozenset[str]:
    backbone = network.get_submodule("backbone")
    list_them = getattr(backbone, "no_weight_decay", None)
    listed = list_them() if callable(list_them) else ()
    return frozenset(f"backbone.{name}" for name in listed)


def _is_undecayed(name: str, parameter: nn.Parameter, undecayed: frozenset[str]) -> bool:
    return parameter.ndim <= 1 or name.endswith(".bias") or name in undecayed
