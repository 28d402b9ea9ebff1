"""A recipe's decisions put into a configuration: every key that the user gave stands, and that is said too."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from finetune.build import shipped
from finetune.config import flatten
from finetune.recipe import Decision, Facts, decide

_SWITCHES = ("data", "trainer", "backbone")
"""Groups whose options say where or what, and leave their other keys to the recipe."""


class Followed(NamedTuple):
    """A key, the value it has now, whether the user gave it, and the recipe's reason (or what it would have said)."""

    key: str
    value: Any
    given: bool
    reason: str


def given_keys(overrides: Sequence[str], experiments: Iterable[Path] = ()) -> frozenset[str]:
    """Keys and groups that the command line, or a file of ``experiment=``, names; a group left at ``auto`` is not given."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    names = {override.key_or_group for override in parsed if "." in override.key_or_group or override.value() != "auto"}
    for file in experiments:
        content = OmegaConf.load(file)
        assert isinstance(content, DictConfig)
        for item in content.pop("defaults", []):
            names |= {str(key).removeprefix("override").strip(" /") for key in item}
        names |= {key for key, _ in flatten(content)}
    return frozenset(names)


def follow(cfg: DictConfig, facts: Facts, given: Collection[str]) -> tuple[DictConfig, list[Followed]]:
    """``cfg`` with the recipe's values in it, and what was done; its ``recipe`` is then ``none``, so that it stays so."""
    resolved = cfg.copy()
    done: list[Followed] = []
    with open_dict(resolved):
        for decision in decide(facts) if cfg.recipe != "none" else ():
            if _is_given(decision.key, given):
                done.append(
                    Followed(decision.key, _value(resolved, decision.key), True, f"the recipe says {decision.value}")
                )
            else:
                _put(resolved, decision, facts)
                done.append(Followed(*decision[:2], False, decision.reason))
        resolved.recipe = "none"
    return resolved, done


def lines(name: str, facts: Facts, done: Sequence[Followed]) -> Iterator[str]:
    """What is printed before training."""
    if not done:
        yield "recipe    none: every key as it stands"
        return
    sizes = f"{facts.smallest:,} to {facts.largest:,} a class"
    yield f"recipe    {name}, for {facts.train:,} training images of {facts.classes:,} classes ({sizes})"
    for key, value, given, reason in done:
        yield f"  {key}={_typed(value):<{max(1, 28 - len(key))}} {'given; ' if given else ''}{reason}"


def _is_given(key: str, given: Collection[str]) -> bool:
    """By itself, by its group, or, for a group, by any key in it; the loss is one thing, whichever key of it is given."""
    group = key.partition(".")[0]
    return (
        key in given
        or (group in given and group not in _SWITCHES)
        or ((key == group or group == "loss") and any(name.startswith(f"{group}.") for name in given))
    )


def _value(cfg: DictConfig, key: str) -> Any:
    """What stands under ``key``; of a group, the option's name where that is all there is."""
    if key == "callback.ema":
        return "ema" in cfg.callback
    found = OmegaConf.select(cfg, key)
    return str(found.get("name") or found.get("_target_")) if isinstance(found, DictConfig) else found


def _put(cfg: DictConfig, decision: Decision, facts: Facts) -> None:
    key, value, _ = decision
    if key in ("freeze", "transform"):
        cfg[key] = shipped(key, value)
    elif key == "callback.ema":
        if value:
            cfg.callback.ema = shipped("callback", "ema")
    elif key == "loss.logit_adjustment":
        cfg.loss = shipped("loss", "binary_cross_entropy" if facts.multilabel else "cross_entropy")
        if not facts.multilabel:
            cfg.loss.logit_adjustment = value
    else:
        OmegaConf.update(cfg, key, value)


def _typed(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
