"""The door of every command: overrides are checked before Hydra sees them, and errors leave as one message.

``main = entry("train", run)`` in a verb's file makes it a Hydra application that works from any folder. Exit codes: 0
done, 1 the work failed, 2 the input is wrong, 130 SIGINT, 143 SIGTERM. Nothing heavy is imported here.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from finetune import command_line, config, help  # noqa: A004 - the page of --help
from finetune.errors import ConfigError, FinetuneError, Interrupted, combine

log = logging.getLogger(__name__)
Run = Callable[[DictConfig], Any]


def entry(verb: str, run: Run) -> Callable[[], None]:
    """The ``main`` of ``python -m finetune.VERB``: checks, runs, and exits with a code."""

    def main() -> None:
        exit_codes: list[int] = []

        def task(cfg: DictConfig) -> Any:
            if HydraConfig.get().mode == RunMode.MULTIRUN:  # the launcher records what each job raises
                return run(cfg)
            return _guarded(run, cfg, exit_codes)

        sys.argv[1:] = _multirun_first(sys.argv[1:])
        arguments, unknown = get_args_parser().parse_known_args()
        if arguments.help:
            print(_help(verb, sys.modules[run.__module__].__doc__ or "", arguments.overrides))  # noqa: T201
            return
        problems = [_unknown_flag(text) for text in unknown if text.startswith("-")]
        asks_hydra = arguments.hydra_help or arguments.info or arguments.shell_completion
        if not (asks_hydra or arguments.config_name or arguments.config_path):
            problems += command_line.problems(
                verb,
                arguments.overrides,
                config_dir=arguments.config_dir,
                multirun=arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides,
                to_be_run=arguments.cfg is None,
            )
        if problems:
            sys.exit(report(combine(problems)))
        hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name=verb)(task)()
        sys.exit(max(exit_codes, default=0))

    return main


def _multirun_first(words: list[str]) -> list[str]:
    """``-m`` wherever it was typed: argparse takes one run of overrides and would leave out those after the flag."""
    flags = [word for word in words if word in ("-m", "--multirun")]
    return flags[:1] + [word for word in words if word not in flags]


def report(error: FinetuneError) -> int:
    """Print one message for the user; gives the exit code."""
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
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


def _unknown_flag(text: str) -> FinetuneError:
    return ConfigError(f"{text} is no flag of this command; keys are written without dashes, KEY=VALUE (--help)")


def _help(verb: str, about: str, overrides: list[str]) -> str:
    try:
        return help.page(verb, about, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(report(ConfigError(str(error).splitlines()[0])))
