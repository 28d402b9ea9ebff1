"""The door of every command: overrides are checked before Hydra sees them, and errors leave as one message.

``main = entry("train", run)`` in a verb's file makes it a Hydra application that works from any folder. Exit codes: 0
done, 1 the work failed, 2 the input is wrong, 130 SIGINT, 143 SIGTERM. Nothing heavy is imported here.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune import config
from finetune.errors import ConfigError, DataError, FinetuneError, combine

log = logging.getLogger(__name__)
Run = Callable[[DictConfig], Any]


class Interrupted(BaseException):
    """A signal asked the command to leave; what there was to save is saved. The exit code is 128 + the signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by signal {signal_number}")
        self.exit_code = 128 + signal_number


def entry(verb: str, run: Run) -> Callable[[], None]:
    """The ``main`` of ``python -m finetune.VERB``: checks, runs, and exits with a code."""

    def main() -> None:
        exit_codes: list[int] = []

        def task(cfg: DictConfig) -> Any:
            if HydraConfig.get().mode == RunMode.MULTIRUN:  # the launcher records what each job raises
                return run(cfg)
            return _guarded(run, cfg, exit_codes)

        arguments = get_args_parser().parse_args()
        asks_for_information = arguments.help or arguments.hydra_help or arguments.info
        if not (asks_for_information or arguments.shell_completion):
            problems = _problems(verb, arguments.overrides, arguments.config_dir)
            if problems:
                sys.exit(report(combine(problems)))
        hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name=verb)(task)()
        sys.exit(max(exit_codes, default=0))

    return main


def report(error: FinetuneError) -> int:
    """Print one message for the user; gives the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _guarded(run: Run, cfg: DictConfig, exit_codes: list[int]) -> Any:
    """Run, and turn whatever ends the work into an exit code; only a defect of ours shows a traceback."""
    try:
        return run(cfg)
    except FinetuneError as error:
        log.debug("%s", traceback.format_exc())
        exit_codes.append(report(error))
    except Interrupted as interruption:
        exit_codes.append(interruption.exit_code)
    except KeyboardInterrupt:
        exit_codes.append(130)
    except Exception:
        log.exception("this is a defect of finetune, or of a package it uses; please report it with the lines below")
        exit_codes.append(1)
    return None


def _problems(verb: str, texts: Sequence[str], config_dir: str | None) -> list[FinetuneError]:
    """Everything wrong with the command line, before any work is done."""
    try:
        overrides = OverridesParser.create().parse_overrides(list(texts))
    except HydraException as error:
        return [ConfigError(f"{str(error).splitlines()[0]}; overrides are written KEY=VALUE, strange values in quotes")]
    search_path = f"hydra.searchpath=[file://{config_dir}]" if config_dir else "hydra.searchpath=[]"
    try:
        with hydra.initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
            return _check_overrides(verb, overrides, search_path)
    finally:
        GlobalHydra.instance().clear()


def _check_overrides(verb: str, overrides: list[Override], search_path: str) -> list[FinetuneError]:
    problems: list[FinetuneError] = []
    options = config.groups()
    used = _defaults_of(verb)
    sound: list[str] = [search_path]
    values: list[Override] = []
    for override in overrides:
        name = override.key_or_group
        if name.startswith("hydra") or override.is_delete() or override.package:
            sound.append(override.input_line or "")
        elif name in used and name in options and not override.is_add():
            unknown = [choice for choice in _choices(override) if str(choice) not in options[name]]
            if unknown and search_path == "hydra.searchpath=[]":
                problems.extend(
                    ConfigError(f"{name}={choice} is unknown; {config.nearest(str(choice), options[name])}")
                    for choice in unknown
                )
            else:
                sound.append(_first_choice(override))
        else:
            values.append(override)
    defaults = _compose(verb, sound, problems)
    if defaults is None:
        return problems
    known = [key for key, _ in config.flatten(defaults)] + sorted(OmegaConf.missing_keys(defaults)) + sorted(used)
    for override in values:
        if override.is_add() or override.is_force_add() or _has(defaults, override.key_or_group):
            sound.append(_first_choice(override))
        else:
            problems.append(
                ConfigError(f"{override.key_or_group} is unknown; {config.nearest(override.key_or_group, known)}")
            )
    composed = _compose(verb, sound, problems)
    if composed is not None:
        problems.extend(config.check(composed, defaults))
        problems.extend(_data_problems(composed))
    return problems


def _defaults_of(verb: str) -> set[str]:
    """The groups that the verb's configuration uses."""
    defaults = OmegaConf.load(config.CONF_DIR / f"{verb}.yaml").get("defaults", [])
    return {
        str(key).split("@")[0].removeprefix("override /")
        for item in defaults
        if OmegaConf.is_dict(item)
        for key in item
    }


def _compose(verb: str, lines: list[str], problems: list[FinetuneError]) -> DictConfig | None:
    try:
        return hydra.compose(config_name=verb, overrides=lines)
    except (HydraException, OmegaConfBaseException) as error:
        problems.append(ConfigError(str(error).splitlines()[0]))
        return None


def _choices(override: Override) -> list[Any]:
    """Every option an override of a group names: one, a list of them, or a sweep over them."""
    value = list(override.sweep_iterator()) if override.is_sweep_override() else override.value()
    if value is None or value in ("null", {}):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _first_choice(override: Override) -> str:
    """The override as one job of a sweep sees it."""
    line = override.input_line or ""
    if not override.is_sweep_override():
        return line
    return f"{line.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"


def _has(cfg: DictConfig, key: str) -> bool:
    node: Any = cfg
    for name in key.split("."):
        if not OmegaConf.is_dict(node) or name not in node._content:
            return False
        node = node._get_node(name)
    return True


def _data_problems(cfg: DictConfig) -> list[FinetuneError]:
    """What a glance at the data set shows, so that it is reported together with everything else."""
    if "data" not in cfg or OmegaConf.is_missing(cfg.data, "path"):
        return []
    if cfg.data.get("_target_") != "finetune.data.folder.FolderData":
        return []
    from finetune.data import folder

    found = folder.problems(str(cfg.data.path), class_from=cfg.data.class_from)
    return [DataError(problem) for problem in found]
