"""The door from Hydra's ``-m`` to ``finetune.sweep``. Scanned at every start of every command: imports Hydra only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

_OURS = (
    "hydra.sweep.",
    "hydra.sweeper",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.mode",
    "hydra.run.dir",
)


class FinetuneSweeper(Sweeper):
    """Hands the sweep over; ``hydra/sweeper=finetune`` is the default of ``finetune.train``."""

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration; jobs are processes, so the task function stays unused."""
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep and leave with its exit code."""
        from hydra.core.utils import configure_log

        from finetune import cli
        from finetune.errors import FinetuneError
        from finetune.sweep.run import run_sweep

        assert self.config is not None
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        try:
            sys.exit(run_sweep(self._request(arguments)))
        except FinetuneError as error:
            sys.exit(cli.report(error))

    def _request(self, arguments: list[str]) -> Any:
        from finetune.sweep.launchers import engine_and_options
        from finetune.sweep.run import Request, command_of_this_process

        assert self.config is not None
        hydra = self.config.hydra
        typed = [str(text) for text in hydra.overrides.hydra]
        config: Any = OmegaConf.to_container(self.config, resolve=False)
        sweep: Any = OmegaConf.to_container(self.config.sweep, resolve=True)
        launcher: Any = OmegaConf.to_container(hydra.launcher, resolve=True)
        engine, options = engine_and_options(launcher, sweep["threads_per_job"])
        directory_is_chosen = any(text.lstrip("+").startswith("hydra.sweep.dir=") for text in typed)
        return Request(
            command=(*command_of_this_process(), *_config_options()),
            overrides=tuple(text for text in arguments if not text.lstrip("+~").startswith(("sweep=", "sweep."))),
            hydra_overrides=tuple(text for text in typed if not text.lstrip("+~").startswith(_OURS)),
            sweep=sweep,
            engine=engine,
            options=options,
            directory=Path(hydra.sweep.dir).absolute(),
            directory_is_chosen=directory_is_chosen,
            config={key: value for key, value in config.items() if key != "hydra"},
            choices=OmegaConf.to_container(hydra.runtime.choices),  # type: ignore[arg-type]
        )


def _config_options() -> list[str]:
    """``--config-dir`` and its kind, which a job needs as well."""
    from hydra._internal.utils import get_args_parser

    given = vars(get_args_parser().parse_args())
    names = ("config_path", "config_name", "config_dir")
    return [word for name in names if given.get(name) for word in (f"--{name.replace('_', '-')}", given[name])]
