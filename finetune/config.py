"""The configuration: where it lives, what may be written in it, and every problem in it at once.

The signature of a part is its schema: what stands right of ``*`` in ``finetune/GROUP/NAME.py`` are the keys of
``conf/GROUP/NAME.yaml``. Signatures are read from the source with ``ast``, so a typing error is reported in a second,
before torch is imported. Keys that belong to no part of ours (the trainer's, a verb's own) are held to the type of their
default. See docs/decisions/0002-configuration.md.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune.errors import ConfigError

_PACKAGE = Path(__file__).parent
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Beside the package in a checkout, inside it in a wheel."""

_ANNOTATIONS = {**vars(typing), "Literal": typing.Literal, "Any": Any}


class Parameter(NamedTuple):
    """A keyword-only parameter of a part: its annotation as written, and whether it has a default."""

    annotation: str
    required: bool


def groups() -> dict[str, list[str]]:
    """Options of every configuration group."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(CONF_DIR.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }


def check(cfg: DictConfig, defaults: DictConfig) -> list[ConfigError]:
    """Everything wrong with a composed configuration: missing keys, unknown ones, values of the wrong type.

    ``defaults`` is the configuration as shipped, which says what type a key without a signature has.
    """
    problems = [ConfigError(missing_message(key)) for key in sorted(OmegaConf.missing_keys(cfg))]
    for path, node in parts(cfg):
        problems.extend(_check_part(path, node, _select(defaults, path)))
    part_paths = tuple(path for path, node in parts(cfg) if _signature_of(node["_target_"]) is not None)
    for key, value in flatten(cfg):
        inside_part = any(key == path or key.startswith(f"{path}.") for path in part_paths)
        if not inside_part:
            problems.extend(_check_against_default(key, value, _select(defaults, key)))
    return problems


def missing_message(key: str) -> str:
    """What to say when the mandatory ``key`` is not given."""
    if key == "data.path":
        return "data.path is missing: the folder with your images is expected, for example data.path=./mydata"
    return f"{key} is missing: give it on the command line as {key}=VALUE"


def parts(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """Every node with a ``_target_``, with its dotted path."""
    for key in cfg:
        node = None if OmegaConf.is_missing(cfg, key) else cfg._get_node(key)
        if not isinstance(node, DictConfig) or node._is_none():
            continue
        if "_target_" in node:
            yield str(key), node
        else:
            yield from ((f"{key}.{path}", inner) for path, inner in parts(node))


def flatten(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted key; lists are leaves, missing values are left out."""
    for key in cfg:
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from ((f"{key}.{inner}", value) for inner, value in flatten(node))
        elif not OmegaConf.is_missing(cfg, key):
            value = cfg[key]
            yield str(key), OmegaConf.to_container(value) if isinstance(value, ListConfig) else value


def nearest(word: str, words: list[str]) -> str:
    """``did you mean ...?`` with the nearest of ``words``, or all of them when none is near and they are few."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"known are {', '.join(words)}" if len(words) <= 20 else "--help lists what there is"


def _check_part(path: str, node: DictConfig, shipped: Any) -> list[ConfigError]:
    """A key that the verb's own YAML adds to the part (``data.split`` of evaluate) is the verb's to check."""
    target = node["_target_"]
    signature = _signature_of(target)
    if signature is None:
        return []
    problems: list[ConfigError] = []
    keys = [str(key) for key in node if not str(key).startswith("_")]
    for key in keys:
        if key not in signature and isinstance(shipped, DictConfig) and key in shipped:
            continue
        if key not in signature:
            problems.append(ConfigError(f"{path}.{key} is unknown; {nearest(key, sorted(signature))}"))
            continue
        if OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        if not _fits(value, signature[key].annotation):
            expected = _in_words(signature[key].annotation)
            problems.append(ConfigError(f"{path}.{key}={_shown(value)}: {expected} is expected"))
    absent = [key for key, parameter in signature.items() if parameter.required and key not in keys]
    problems.extend(ConfigError(missing_message(f"{path}.{key}")) for key in absent)
    return problems


def _signature_of(target: str) -> dict[str, Parameter] | None:
    """Keyword-only parameters of ``finetune.GROUP.NAME.OBJECT``, read from its source; None for what is not ours."""
    module_name, _, name = target.rpartition(".")
    if not module_name.startswith("finetune."):
        return None
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None:
        raise ConfigError(f"_target_={target}: there is no module {module_name}")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _keyword_only(node)
        if isinstance(node, ast.ClassDef) and node.name == name:
            constructors = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            return _keyword_only(constructors[0]) if constructors else {}
    raise ConfigError(f"_target_={target}: {module_name} has no {name}")


def _keyword_only(function: ast.FunctionDef) -> dict[str, Parameter]:
    arguments = function.args
    return {
        argument.arg: Parameter("Any" if argument.annotation is None else ast.unparse(argument.annotation), not default)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }


def _fits(value: Any, annotation: str) -> bool:
    """Whether ``value`` is what the annotation says; nothing is converted, but a whole number passes as a float."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        kind = eval(annotation, {"__builtins__": __builtins__}, _ANNOTATIONS)  # noqa: S307 - our own source
    except NameError:  # an alias of the module: its part checks the value itself
        return True
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        return False
    except PydanticUserError:
        return True
    return True


def _check_against_default(key: str, value: Any, default: Any) -> list[ConfigError]:
    last = key.rpartition(".")[2]
    if default is None or value is None or last.startswith("_") or isinstance(default, DictConfig | ListConfig):
        return []
    kinds: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
    accepted = kinds.get(type(default), (type(value),))
    right = isinstance(value, accepted) and isinstance(value, bool) <= (bool in accepted)
    if right or (isinstance(default, str) and default == "auto"):
        return []
    return [ConfigError(f"{key}={_shown(value)}: {_in_words(type(default).__name__)} is expected")]


def _in_words(annotation: str) -> str:
    """An annotation as a user reads it."""
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "a text",
        "None": "null",
        "list[str]": "a list of texts",
        "list[int]": "a list of whole numbers",
        "list[float]": "a list of numbers",
        "list[dict[str, Any]]": "a list of mappings",
    }
    alternatives = [part.strip() for part in annotation.split("|")]
    named: list[str] = []
    for part in alternatives:
        if part.startswith("Literal["):
            named.append("one of " + ", ".join(str(option) for option in ast.literal_eval(f"({part[8:-1]},)")))
        else:
            named.append(words.get(part, part))
    return " or ".join(named)


def _shown(value: Any) -> str:
    return (
        {True: "true", False: "false", None: "null"}.get(value, str(value))
        if not isinstance(value, list)
        else str(value)
    )


def _select(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key)
    except OmegaConfBaseException:  # an interpolation or a missing value: no type to hold the key to
        return None
