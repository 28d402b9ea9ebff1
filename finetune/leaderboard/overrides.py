"""The inverse of composing: from a run's ``config.yaml`` to the overrides that lead to it from the defaults.

For every group the option that leaves the fewest keys to set is taken. Hydra composes the defaults once per process; an
option is its file, with those it is built on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from finetune.config import CONF_DIR, groups

_GROUPS = ("data", "transform", "backbone", "head", "freeze", "loss", "optimizer", "scheduler", "trainer", "cache")
_PLAIN = re.compile(r"[A-Za-z0-9_./:+@%?|$*-]+")
IGNORED = (
    "logger.", "report.", "sweep.", "callback.pruning.", "resume", "checkpoint_", "log_every_n_steps", "cache.",
    "max_skipped_steps", "data.num_workers", "data.cache", "experiment.",
)  # fmt: skip
"""Keys that say how a run was watched or stored, not what it computes."""


class Inverse:
    """``Inverse()(config)`` gives overrides, without quotes around values; ``{}`` for an empty configuration."""

    def __init__(self) -> None:
        self._options = groups()

    def __call__(self, config: Mapping[str, Any]) -> dict[str, str]:
        """The overrides of a run, groups first."""
        if not config:
            return {}
        leaves = dict(_leaves(config))
        chosen: dict[str, str] = {}
        expected = dict(_default_leaves())
        for group in _GROUPS:
            own, default = _under(leaves, group), _under(expected, group)
            option = self._nearest(group, own, default) if own != default else ""
            if option:
                chosen[group] = option
                expected = {key: value for key, value in expected.items() if not key.startswith(f"{group}.")}
                expected |= _of_option(group, option, own)
        callbacks = sorted({key.split(".")[1] for key in leaves if key.startswith("callback.")} - {"pruning"})
        if callbacks:
            chosen["callback"] = callbacks[0] if len(callbacks) == 1 else f"[{','.join(callbacks)}]"
            for name in set(callbacks) & set(self._options["callback"]):
                own = {key.replace(f"callback.{name}.", "callback."): value for key, value in leaves.items()}
                found = _of_option("callback", name, own)
                expected |= {key.replace("callback.", f"callback.{name}.", 1): value for key, value in found.items()}
        keys = {
            key: _text(value)
            for key, value in leaves.items()
            if expected.get(key, _ABSENT) != value and not key.startswith(IGNORED) and "._target_" not in key
        }
        return chosen | keys

    def settings(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Every leaf of ``config`` as text, and the default option of every group."""
        defaults = {group: option for group, option in _default_options() if group in _GROUPS}
        return {**defaults, **{key: _text(value) for key, value in _leaves(config)}}

    def _nearest(self, group: str, own: dict[str, Any], default: dict[str, Any]) -> str:
        """The option with the fewest keys left to set; empty for the default."""

        def left(leaves: Mapping[str, Any]) -> int:
            return sum(leaves.get(key, _ABSENT) != own.get(key, _ABSENT) for key in {*leaves, *own})

        distances = {option: left(_of_option(group, option, own)) for option in self._options[group]}
        best = min(distances, key=lambda option: distances[option])
        return best if distances[best] < left(default) else ""


def typed(overrides: Mapping[str, str]) -> list[str]:
    """Overrides as they are typed in a shell; values with strange characters in quotes."""
    words = []
    for key, value in overrides.items():
        plain = _PLAIN.fullmatch(value) is not None
        list_like = re.fullmatch(r"\[[A-Za-z0-9_.,+-]*\]", value) is not None
        words.append(f"{key}={value}" if plain or list_like else f"\"{key}='{value}'\"")
    return words


_ABSENT = object()


@functools.cache
def _default_leaves() -> dict[str, Any]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train")
    GlobalHydra.instance().clear()
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    return dict(_leaves(plain))


@functools.cache
def _file(group: str, option: str) -> dict[str, Any]:
    """An option's keys, those of the options it is built on first."""
    plain: Any = OmegaConf.to_container(OmegaConf.load(CONF_DIR / group / f"{option}.yaml"), resolve=False)
    merged: dict[str, Any] = {}
    for parent in plain.pop("defaults", []):
        merged |= _file(group, parent) if isinstance(parent, str) and parent != "_self_" else {}
    return merged | dict(_leaves(plain))


def _of_option(group: str, option: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The option's keys under their group; a reference to another key is what the run has there."""
    found = {f"{group}.{key}": value for key, value in _file(group, option).items()}
    refers = {key for key, value in found.items() if isinstance(value, str) and "${" in value}
    return {key: own.get(key, value) if key in refers else value for key, value in found.items()}


def _default_options() -> Iterator[tuple[str, str]]:
    for entry in OmegaConf.load(CONF_DIR / "train.yaml").defaults:
        if OmegaConf.is_dict(entry):
            yield from ((str(group), str(option)) for group, option in entry.items())


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _under(leaves: Mapping[str, Any], group: str) -> dict[str, Any]:
    return {key: value for key, value in leaves.items() if key.startswith(f"{group}.")}


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_text(item) for item in value)}]"
    return str(value)
