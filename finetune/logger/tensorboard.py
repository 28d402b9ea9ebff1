"""TensorBoard: event files in ``run_directory/tensorboard``; ``tensorboard --logdir runs`` shows every run.

Use it on a machine without any service. Costs nothing but the package: ``pip install 'finetune[tensorboard]'``. A
resumed run writes a marker (``purge_step``) that makes readers drop the steps that are computed again.
"""

from __future__ import annotations

import importlib.util
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from finetune import redact
from finetune.errors import ConfigError
from finetune.logger.flatten import flatten
from finetune.logger.guard import Guard

FOLDER = "tensorboard"


class TensorBoardLogger(LightningTensorBoardLogger):
    """Scalars and the flattened configuration of one run; a flush to disk at least every ``flush_s`` seconds."""

    def __init__(self, run_directory: Path, config: dict[str, Any], *, flush_s: int = 10) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError("logger=tensorboard needs a package: pip install 'finetune[tensorboard]'")
        super().__init__(save_dir=run_directory, name=FOLDER, version="", default_hp_metric=False, flush_secs=flush_s)
        self._config = config
        self._resumed = any((Path(run_directory) / FOLDER).glob("events.*"))
        self._begun = False
        self._guard = Guard("TensorBoard")

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the whole configuration is written at the first step."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars at ``step``."""
        self._guard.send(lambda: self._log(metrics, step))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the file open: Lightning calls this after every fit, validate and test."""
        self.experiment.flush()

    @rank_zero_only
    def finish(self, status: str) -> None:
        """Close the event file."""
        if self._begun:
            self._guard.send(self.experiment.close)

    def _log(self, metrics: Mapping[str, float], step: int | None) -> None:
        if not self._begun:
            self._begun = True
            if self._resumed:
                self._kwargs["purge_step"] = step
            flat = redact.redact(flatten(self._config), redact.secret_values(os.environ))
            rows = "\n".join(f"| {key} | {value} |" for key, value in flat.items())
            self.experiment.add_text("config", f"| key | value |\n| --- | --- |\n{rows}", step or 0)
        super().log_metrics(dict(metrics), step)
