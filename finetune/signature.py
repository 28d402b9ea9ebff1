"""What a part accepts, read from its source: the keyword-only parameters are the schema of its YAML.

``ast`` reads annotations without importing the module, so a typing error costs no import of torch. Values are judged by
plain recursion over the annotation: pydantic's TypeAdapter does the same and costs 0.3 s of imports.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finetune import ranges
from finetune.errors import ConfigError

_NAMES = {**vars(typing), **vars(ranges)}
_FOREIGN = {"lightning.pytorch.Trainer": ("lightning/pytorch/trainer/trainer.py", "Trainer")}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
_LIST_WORDS = {int: "whole numbers", float: "numbers", str: "texts", dict: "mappings"}


class Parameter(NamedTuple):
    """A keyword-only parameter of a part: its annotation as written, and its default as a Python literal."""

    annotation: str
    required: bool
    default: Any = None


@functools.cache
def signature(target: str) -> Mapping[str, Parameter] | None:
    """Keyword-only parameters of ``finetune.GROUP.NAME.OBJECT``; None for a target that is not ours.

    Raises:
        ConfigError: there is no such module or object.
    """
    module_name, _, name = target.rpartition(".")
    if not module_name.startswith("finetune."):
        return None
    file = Path(__file__).parent.joinpath(*module_name.split(".")[1:]).with_suffix(".py")
    if not file.is_file():
        raise ConfigError(f"_target_={target}: there is no module {module_name}")
    return _in_file(file, name, target)


@functools.cache
def foreign_signature(target: str) -> Mapping[str, Parameter] | None:
    """As ``signature``, for the few classes of other packages that a YAML may name; None for any other."""
    if target not in _FOREIGN:
        return None
    relative, name = _FOREIGN[target]
    package = importlib.util.find_spec(relative.partition("/")[0])  # a top-level package is found without importing it
    assert package is not None, "it is a dependency"
    assert package.origin is not None, "it is no namespace package"
    return _in_file(Path(package.origin).parent.parent / relative, name, target)


def fits(value: Any, annotation: str) -> bool:
    """Whether ``value`` is what the annotation says; nothing is converted, but a whole number passes as a float."""
    kind = _kind(annotation)
    return True if kind is None else _fits(value, kind)


def in_words(annotation: str) -> str:
    """An annotation as a user reads it."""
    return _in_words(_kind(annotation))


def _in_file(file: Path, name: str, target: str) -> Mapping[str, Parameter]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _keyword_only(node)
        if isinstance(node, ast.ClassDef) and node.name == name:
            constructors = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            return _keyword_only(constructors[0]) if constructors else {}
    raise ConfigError(f"_target_={target}: {file.name} has no {name}")


def _keyword_only(function: ast.FunctionDef) -> Mapping[str, Parameter]:
    arguments = function.args
    return {
        argument.arg: Parameter(
            "Any" if argument.annotation is None else ast.unparse(argument.annotation),
            default is None,
            _literal(default),
        )
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:  # a name of the module, as in `opset: int = OPSET`
        return ast.unparse(node) if node is not None else None


def _kind(annotation: str) -> Any:
    """The annotation as an object; None for an alias of its module, whose values the part checks itself."""
    try:
        return eval(annotation, {"__builtins__": __builtins__}, _NAMES)  # noqa: S307 - our own source
    except NameError:
        return None


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if kind is None:
        return value is None
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _fits(value, arguments[0]) and all(within.holds(value) for within in arguments[1:])
    if origin is typing.Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin in (list, tuple):
        return isinstance(value, list) and all(_fits(entry, arguments[0]) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, arguments[0]) and _fits(entry, arguments[1]) for key, entry in value.items()
        )
    if kind in (int, float):
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _in_words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return " ".join([_in_words(arguments[0]), *(within.words for within in arguments[1:])])
    if origin is typing.Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(str(option) for option in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(option) for option in arguments)
    if origin in (list, tuple):
        inner = typing.get_origin(arguments[0]) or arguments[0]
        return f"a list of {_LIST_WORDS.get(inner, 'values')}"
    if origin is dict:
        return "a mapping"
    return _WORDS.get(kind, str(kind))
