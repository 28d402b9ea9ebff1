"""The page of ``--help``: what the command does, its groups with their options, its keys with what they mean.

Hydra's own page lists every group of every command, none of the comments, and takes seconds; this one is made of the
verb's docstring and the comments in its YAML files, in the words that are typed on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from finetune import config

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w-]+):(?P<value>[^#]*?|\s*\".*?\"\s*)(?:\s#\s*(?P<comment>.*))?$")
_WIDTH = 40


def page(verb: str, about: str, overrides: Sequence[str]) -> str:
    """The text for ``python -m finetune.VERB --help overrides...``; the overrides choose options and set values."""
    try:
        with hydra.initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
            cfg = hydra.compose(config_name=verb, overrides=list(overrides), return_hydra_config=True)
    finally:
        GlobalHydra.instance().clear()
    options = config.groups()
    used = [name for name in config.defaults(verb) if name in options]
    single = cfg.hydra.runtime.choices
    chosen = {name: list(cfg[name]) if name in config.SEVERAL else [str(single[name] or "")] for name in used}
    OmegaConf.set_struct(cfg, value=False)
    cfg.pop("hydra")
    comments = dict(_comments(config.CONF_DIR / f"{verb}.yaml", ""))
    for name in used:
        for option in map(str, chosen[name]):
            prefix = f"{name}.{option}." if name in config.SEVERAL else f"{name}."
            comments |= dict(_comments(config.CONF_DIR / name / f"{option}.yaml", prefix))
    lines = [about.strip(), "", "Groups, GROUP=NAME (what is chosen stands first):"]
    lines += [f"  {name:<14} {_options(chosen[name], options[name])}" for name in used]
    lines += ["", "Keys, KEY=VALUE:"]
    for key, value in _leaves(cfg):
        if key.endswith(".name") and [value] == chosen.get(key.removesuffix(".name")):
            continue  # freeze=auto, loss=auto: only a word for what is decided later
        typed = f"  {key}={value}"
        comment = comments.get(key, "")
        lines.append(f"{typed:<{_WIDTH}} {comment}" if comment else typed)
    return "\n".join([*lines, "", _FOOTER])


_FOOTER = """\
--cfg job prints the configuration as composed, --cfg job --resolve with its values filled in.
-m runs every combination of listed values: -m optimizer.lr=1e-3,3e-4 seed=1,2
--hydra-help lists what Hydra itself takes; exit codes are 0 done, 1 failed, 2 wrong input, 130 and 143 interrupted."""


def _options(chosen: list[str], options: list[str]) -> str:
    return " | ".join([*filter(None, chosen), *(option for option in options if option not in chosen)])


def _leaves(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """Keys and values as they are typed."""
    missing = OmegaConf.missing_keys(cfg)
    for top in map(str, cfg):
        names = [key for key in missing if key == top or key.startswith(f"{top}.")]
        yield from ((key, "???") for key in sorted(names))
        if OmegaConf.is_missing(cfg, top):
            continue
        for key, value in config.flatten(OmegaConf.masked_copy(cfg, [top])):
            if not key.rpartition(".")[2].startswith("_"):
                yield key, _typed(value)


def _typed(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(_typed(entry) for entry in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_typed(entry)}' for key, entry in value.items())}}}"
    return str(value)


def _comments(file: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Every ``key: value  # comment`` of a YAML file, with the key's full name."""
    above: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        found = _LINE.match(line)
        if found:
            above = [*above[: len(found["indent"]) // 2], found["key"]]
            if found["comment"]:
                yield prefix + ".".join(above), found["comment"]
