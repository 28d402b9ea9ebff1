"""What is wrong with a command line, all of it, before Hydra and before any work: one list of problems.

Overrides are parsed one by one, groups are composed once, values are put in one by one, so that a mistake hides no
other. What can be seen at a glance of the world outside (the folder, the files, the network's name) is checked with it.
Nothing here imports torch; a wrong command is answered in about the time that Hydra takes to start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from finetune import config, surroundings
from finetune.errors import ConfigError, FinetuneError


class _Group(NamedTuple):
    """A group in a verb's defaults: its options, and whether the verb can do without."""

    options: list[str]
    required: bool


def problems(
    verb: str,
    texts: Sequence[str],
    *,
    config_dir: str | None = None,
    multirun: bool = False,
    to_be_run: bool = True,
) -> list[FinetuneError]:
    """Everything wrong with ``python -m finetune.VERB texts...``.

    With ``to_be_run`` false (``--cfg``) only what is said counts: keys may be missing, and nothing is looked for.
    """
    found: list[FinetuneError] = []
    overrides = list(_parsed(texts, found))
    path = "file://" + str(Path(config_dir).resolve()) if config_dir else ""
    try:
        with hydra.initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
            composed = _check(verb, overrides, path, multirun, found)
        if to_be_run and composed is not None:
            found[:0] = config.missing(composed.cfg)
            found.extend(surroundings.problems(verb, *composed))
    finally:
        GlobalHydra.instance().clear()
    return found


def _parsed(texts: Sequence[str], found: list[FinetuneError]) -> Iterator[Override]:
    parser = OverridesParser.create()
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.strip("+~ "):
            found.append(ConfigError(f"'{text}' has no key before the =; KEY=VALUE is expected"))
            continue
        try:
            yield parser.parse_override(text)
        except HydraException:
            if not equals:
                found.append(ConfigError(f"'{text}' is no KEY=VALUE, as in data.path=./mydata or head=mlp"))
            else:
                found.append(ConfigError(f"'{text}' cannot be read; quote the value twice: '{key}=\"{value}\"'"))


class _Composed(NamedTuple):
    """The configuration with every sound override in it, and as it would be with the choices of groups alone."""

    cfg: DictConfig
    shipped: DictConfig


def _check(
    verb: str,
    overrides: list[Override],
    config_dir: str,
    multirun: bool,  # noqa: FBT001 - private
    found: list[FinetuneError],
) -> _Composed | None:
    groups = _groups(verb, config_dir)
    lines, foreign, values = [f"hydra.searchpath=[{config_dir}]"], list[str](), list[Override]()
    for override in overrides:
        name = override.key_or_group
        if override.is_sweep_override() and not (multirun or name.startswith("sweep.")):
            found.append(ConfigError(_several(override, groups)))
        elif name in groups and not override.is_delete():
            lines.extend(_group_choice(override, groups[name], found))
        elif name.startswith("hydra") or override.is_delete() or override.package:
            foreign.append(override.input_line or "")
        else:
            values.append(override)
    chosen = _compose(verb, [*lines, *foreign], found) or _compose(verb, lines, found)
    if chosen is None:
        return None
    for name, group in groups.items():
        if group.required and chosen.get(name) is None:
            found.append(ConfigError(f"~{name}: finetune.{verb} needs one of {', '.join(group.options)}"))
    composed = chosen.copy()
    swept: list[tuple[Override, list[Any]]] = []
    for override in values:
        several = _values(override)
        if _put(composed, override, several[0], chosen, groups, found):
            swept.append((override, several[1:]))
    try:
        OmegaConf.resolve(composed.copy())
    except OmegaConfBaseException as error:
        found.append(ConfigError(str(error).splitlines()[0]))
        return None
    found.extend(config.check(composed, chosen))
    for override, others in swept:
        found.extend(_problems_of_others(composed, chosen, override.key_or_group, others, found))
    return _Composed(composed, chosen)


def _compose(verb: str, lines: list[str], found: list[FinetuneError]) -> DictConfig | None:
    try:
        return hydra.compose(config_name=verb, overrides=lines)
    except (HydraException, OmegaConfBaseException) as error:
        found.append(ConfigError(str(error).splitlines()[0].rstrip(".")))
        return None


def _groups(verb: str, config_dir: str) -> dict[str, _Group]:
    """The groups that the verb's configuration uses."""
    options = config.groups(*([config_dir.removeprefix("file://")] if config_dir else []))
    return {
        name: _Group(options[name], default is not None and name not in config.SEVERAL)
        for name, default in config.defaults(verb).items()
        if name in options
    }


def _group_choice(override: Override, group: _Group, found: list[FinetuneError]) -> list[str]:
    """The override of a group as one job of a sweep sees it; nothing when an option is unknown."""
    name = override.key_or_group
    if override.is_add() or override.is_force_add():
        found.append(ConfigError(f"+{name}: {name} is chosen already; leave out the +, {name}=OPTION"))
        return []
    several = _values(override)
    if None in several:
        found.append(ConfigError(f"{name}=null: {_instead_of_null(name, group)}"))
        return []
    if any(isinstance(value, dict) for value in several):
        found.append(ConfigError(f"{override.input_line}: keys are set one by one, as in {name}.KEY=VALUE"))
        return []
    options = [option for value in several for option in (value if isinstance(value, list) else [value])]
    unknown = [option for option in options if str(option) not in group.options]
    found.extend(
        ConfigError(f"{name}={option} is unknown; {config.nearest(str(option), group.options)}") for option in unknown
    )
    if any(isinstance(value, list) for value in several) and name not in config.SEVERAL:
        found.append(
            ConfigError(f"{name}={_typed(several[0])}: one option is expected; only callback and logger take several")
        )
        return []
    return [] if unknown else [f"{name}={_typed(several[0])}"]


def _instead_of_null(name: str, group: _Group) -> str:
    if name in config.SEVERAL:
        return f"none of them is written {name}=[]"
    return f"one of {', '.join(group.options)} is expected" if group.required else f"leave {name} out for none"


def _values(override: Override) -> list[Any]:
    """What jobs of a sweep get from the override, the bounds of an interval; its one value when it is no sweep."""
    if not override.is_sweep_override():
        value = override.value()
        return [None if value == {} and override.is_delete() else value]
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        return [swept.start, swept.end]
    return list(override.sweep_iterator())


def _several(override: Override, groups: dict[str, _Group]) -> str:
    line = override.input_line or ""
    key, _, value = line.partition("=")
    as_list = f", or write a list: {key}=[{value}]" if key in config.SEVERAL or key not in groups else ""
    return f"{line} has several values; add -m to run each of them{as_list}"


def _put(
    composed: DictConfig,
    override: Override,
    value: Any,
    chosen: DictConfig,
    groups: dict[str, _Group],
    found: list[FinetuneError],
) -> bool:
    """Set one value in ``composed``, if there is such a key."""
    key = override.key_or_group
    there, adds = _has(chosen, key), override.is_add() or override.is_force_add()
    if override.is_add() and not override.is_force_add() and there and not isinstance(value, dict):
        found.append(ConfigError(f"+{key} is there already; leave out the +, {key}=VALUE"))
        return False
    if not (there or adds):
        found.append(ConfigError(_unknown(key, chosen, groups)))
        return False
    try:
        with open_dict(composed):
            OmegaConf.update(composed, key, value, merge=True, force_add=adds)
    except (OmegaConfBaseException, ValueError, TypeError, AssertionError) as error:
        found.append(ConfigError(f"{override.input_line}: {str(error).splitlines()[0]}"))
        return False
    return True


def _problems_of_others(
    composed: DictConfig, chosen: DictConfig, key: str, others: list[Any], found: list[FinetuneError]
) -> list[ConfigError]:
    """What is wrong with a sweep's further values, each said once."""
    said = {str(problem) for problem in found}
    new: list[ConfigError] = []
    for value in others:
        one_job = composed.copy()
        with open_dict(one_job):
            OmegaConf.update(one_job, key, value, merge=True)
        new.extend(problem for problem in config.check(one_job, chosen) if str(problem) not in said)
        said.update(str(problem) for problem in new)
    return new


def _unknown(key: str, chosen: DictConfig, groups: dict[str, _Group]) -> str:
    """Name the option that has the key, or the nearest key that there is."""
    group, _, rest = key.partition(".")
    if group in groups and rest:
        owners = [option for option in groups[group].options if key in _keys_of(group, option)]
        if owners:
            add = "one of them" if len(owners) > 1 else f"{group}={owners[0]}"
            return f"{key} is a key of {group}={f' and {group}='.join(owners)}, which is not chosen; add {add}"
    if key in config.groups():
        return f"{key} is no group of this command; its groups are {', '.join(groups)}"
    known = [name for name, _ in config.flatten(chosen) if not name.rpartition(".")[2].startswith("_")]
    known += sorted(OmegaConf.missing_keys(chosen))
    return f"{key} is unknown; {config.nearest(key, sorted(groups) + known)}"


def _keys_of(group: str, option: str) -> set[str]:
    """Full keys that an option of a group brings."""
    file = config.CONF_DIR / group / f"{option}.yaml"
    if not file.is_file():
        return set()
    prefix = f"{group}.{option}" if group in config.SEVERAL else group
    loaded = OmegaConf.load(file)
    return {f"{prefix}.{name}" for name in map(str, loaded)} if isinstance(loaded, DictConfig) else set()


def _has(cfg: DictConfig, key: str) -> bool:
    node: Any = cfg
    for name in key.split("."):
        if not OmegaConf.is_dict(node) or node._is_none() or node._is_missing() or name not in node._content:
            return False
        node = node._get_node(name)
    return True


def _typed(value: Any) -> str:
    """A choice as it is typed."""
    if value is None:
        return "null"
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
