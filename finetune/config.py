"""The configuration: where it lives, what may be written in it, and every problem in it at once.

The signature of a part is its schema: what stands right of ``*`` in ``finetune/GROUP/NAME.py`` are the keys of
``conf/GROUP/NAME.yaml``. Keys that belong to no part of ours (the trainer's, a verb's own) have their kinds in
``KINDS``; those that are not there are held to the type of their default. See docs/decisions/0002-configuration.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune.errors import ConfigError
from finetune.signature import Parameter, fits, foreign_signature, in_words, signature

_PACKAGE = Path(__file__).parent
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Beside the package in a checkout, inside it in a wheel."""

SEVERAL = ("callback", "logger")
"""Groups of which a run takes any number of options; of the others exactly one."""

KINDS = {
    "recipe": "Literal['auto', 'fast', 'best', 'none']",
    "seed": "Seed",
    "resume": "str | None",
    "checkpoint_every_n_steps": "CountOrZero",
    "max_skipped_steps": "CountOrZero",
    "batch_size": "Count",
    "num_workers": "Count | None",
    "image_size": "Count",
    "tta": "Literal['none', 'flip', 'crops', 'flip_crops']",
    "format": "Literal['csv', 'jsonl']",
    "compare": "str | None",
    "ckpt": "str | None",
    "output": "str | None",
    "latency_runs": "CountOrZero",
    "data.split": "Literal['train', 'val', 'test', 'all']",
    "data.path": "str | None",
    "data.batch_size": "Count",
    "data.num_workers": "CountOrZero | None",
    "trainer.max_epochs": "Count",
    "trainer.max_time": "str | None",
    "trainer.devices": "int | str | list[int]",
    "trainer.num_nodes": "Count",
    "trainer.accumulate_grad_batches": "Count",
    "trainer.gradient_clip_val": "NotNegative | None",
    "trainer.deterministic": "bool | Literal['warn']",
    "trainer.precision": "Literal['auto', '32-true', '16-mixed', 'bf16-mixed', 'bf16-true', '16-true', '64-true']",
}
"""Annotations for keys without a signature, as they would stand in one."""
_FREE = ("sweep.",)
"""What is below these is named by the user."""


def groups(*more: str | Path) -> dict[str, list[str]]:
    """Options of every configuration group, of ours and of the folders in ``more`` (``--config-dir``)."""
    found: dict[str, set[str]] = {}
    for root in (CONF_DIR, *map(Path, more)):
        for folder in root.iterdir() if root.is_dir() else ():
            if folder.is_dir() and folder.name != "hydra":
                found.setdefault(folder.name, set()).update(file.stem for file in folder.glob("*.yaml"))
    return {name: sorted(found[name]) for name in sorted(found)}


def defaults(verb: str) -> dict[str, Any]:
    """The groups in a verb's configuration, in its order, with the option that it takes unasked."""
    listed = OmegaConf.to_container(OmegaConf.load(CONF_DIR / f"{verb}.yaml"))["defaults"]  # type: ignore[index,call-overload]
    return {key: option for item in listed if isinstance(item, dict) for key, option in item.items()}


def check(cfg: DictConfig, defaults: DictConfig) -> list[ConfigError]:
    """Everything wrong with what a composed configuration says: unknown keys, values of the wrong type or range.

    ``defaults`` is the configuration as shipped: it says what keys there are, and the type of one without a signature.
    """
    problems: list[ConfigError] = []
    signed: list[str] = []
    for path, node in parts(cfg):
        try:
            keys = signature(node["_target_"])
        except ConfigError as error:
            problems.append(error)
            signed.append(f"{path}.")
            continue
        if keys is not None:
            signed.append(f"{path}.")
            problems.extend(_check_part(path, node, keys, _select(defaults, path)))
    shipped = [key for key, _ in flatten(defaults)] + sorted(OmegaConf.missing_keys(defaults))
    for key, value in flatten(cfg):
        if not key.startswith(tuple(signed)):
            problems.extend(_check_plain(key, value, cfg, defaults, shipped))
    return problems


def missing(cfg: DictConfig) -> list[ConfigError]:
    """Every mandatory key that has no value, ``???`` in its YAML."""
    return [ConfigError(missing_message(key)) for key in sorted(OmegaConf.missing_keys(cfg))]


def missing_message(key: str) -> str:
    """What to say when the mandatory ``key`` is not given."""
    if key == "data.path":
        return "data.path is missing: the folder with your images is expected, for example data.path=./mydata"
    examples = {
        "ckpt": "a checkpoint or an exported artefact is expected, for example ckpt=RUN/checkpoints/best.ckpt",
        "input": "an image, a folder or a glob is expected, for example input=./photos",
        "runs": "a folder of runs is expected, for example runs=./runs",
        "data.file": "the CSV file with the labels is expected, for example data.file=./mydata/labels.csv",
        "backbone.name": "a timm network is expected, for example backbone.name=convnext_tiny",
    }
    return f"{key} is missing: {examples.get(key, f'give it on the command line as {key}=VALUE')}"


def parts(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """Every node with a ``_target_``, with its dotted path."""
    for key in map(str, cfg):
        node = None if OmegaConf.is_missing(cfg, key) else cfg._get_node(key)
        if not isinstance(node, DictConfig) or node._is_none():
            continue
        if "_target_" in node:
            yield key, node
        else:
            yield from ((f"{key}.{path}", inner) for path, inner in parts(node))


def flatten(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted key; lists are leaves, missing values are left out."""
    for key in map(str, cfg):
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from ((f"{key}.{inner}", value) for inner, value in flatten(node))
        elif not OmegaConf.is_missing(cfg, key):
            value = cfg[key]
            yield key, OmegaConf.to_container(value) if isinstance(value, ListConfig) else value


def nearest(word: str, words: Sequence[str]) -> str:
    """``did you mean ...?`` with the nearest of ``words``, or all of them when none is near and they are few.

    ``lr`` and ``optimiser.lr`` mean ``optimizer.lr``: the last name of a key counts for itself.
    """
    last = word.rpartition(".")[2]
    same_last = [key for key in words if key.rpartition(".")[2] == last]
    close = difflib.get_close_matches(word, same_last, n=1, cutoff=0.0) or difflib.get_close_matches(
        word, words, n=1, cutoff=0.6
    )
    if not close:
        lasts = {key.rpartition(".")[2]: key for key in reversed(words)}
        close = [lasts[name] for name in difflib.get_close_matches(last, list(lasts), n=1, cutoff=0.6)]
    if close:
        return f"did you mean {close[0]}?"
    return f"known are {', '.join(words)}" if len(words) <= 20 else "--help lists what there is"


def _check_part(path: str, node: DictConfig, keys: Mapping[str, Parameter], shipped: Any) -> list[ConfigError]:
    """A key that the verb's own YAML adds to the part (``data.split`` of evaluate) is the verb's to check."""
    problems: list[ConfigError] = []
    given = [str(key) for key in node if not str(key).startswith("_")]
    for key in given:
        annotation = keys[key].annotation if key in keys else KINDS.get(f"{path}.{key}", "Any")
        if key not in keys and not (isinstance(shipped, DictConfig) and key in shipped):
            problems.append(ConfigError(f"{path}.{key} is unknown; {nearest(key, sorted(keys))}"))
        elif not OmegaConf.is_missing(node, key):
            value = node[key]
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            problems.extend(_misfit(f"{path}.{key}", value, annotation))
    absent = [key for key, parameter in keys.items() if parameter.required and key not in given]
    problems.extend(ConfigError(missing_message(f"{path}.{key}")) for key in absent)
    return problems


def _check_plain(
    key: str, value: Any, cfg: DictConfig, defaults: DictConfig, shipped: Sequence[str]
) -> list[ConfigError]:
    """A key outside of every part of ours."""
    group, _, last = key.partition(".")
    if key.startswith(_FREE) or last.startswith("_"):
        return []
    if key not in shipped and not _inside_shipped(key, shipped):
        accepted = foreign_signature(str(_select(cfg, f"{group}._target_")))
        if accepted is None or last not in accepted:
            known = shipped if accepted is None else [f"{group}.{name}" for name in accepted]
            return [ConfigError(f"{key} is unknown; {nearest(key, known)}")]
    if key in KINDS:
        return _misfit(key, value, KINDS[key])
    default = _select(defaults, key)
    if default is None or value is None or isinstance(default, DictConfig | ListConfig) or default == "auto":
        return []
    return _misfit(key, value, type(default).__name__)


def _inside_shipped(key: str, shipped: Sequence[str]) -> bool:
    """Whether ``key`` is below a leaf, as the keys of a mapping given for an empty one are."""
    return any(key.startswith(f"{leaf}.") for leaf in shipped)


def _misfit(key: str, value: Any, annotation: str) -> list[ConfigError]:
    if fits(value, annotation):
        return []
    expected = in_words(annotation)
    quoted = isinstance(value, int | float) and not isinstance(value, bool) and "a text" in expected
    hint = f"; a text of digits is written '{key}=\"{value}\"'" if quoted else ""
    return [ConfigError(f"{key}={_shown(value)}: {expected} is expected{hint}")]


def _shown(value: Any) -> str:
    """A value as a user types it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(_shown(entry) for entry in value)}]"
    return str(value)


def _select(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key)
    except OmegaConfBaseException:  # an interpolation or a missing value: no type to hold the key to
        return None
