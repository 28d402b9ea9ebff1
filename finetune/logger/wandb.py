"""Weights & Biases: one run per training, online when that works within seconds, offline when it does not.

Use it to compare many runs. It never asks, never waits and never stops a training: without a key, with a wrong key,
without a server, or with a server that falls silent, everything is kept in ``run_directory/wandb`` and the line that
uploads it is printed. Costs a second at the start and 2 MB of packages' imports; logging itself is asynchronous.

The run's id is in ``wandb_run_id`` before the first step, and a resumed run goes on under it, with steps that only
rise. Secrets are masked in everything that is sent (``finetune/redact.py``). Each run is closed, with a non-zero exit
code when it failed (https://github.com/wandb/wandb/issues/1314, https://github.com/wandb/wandb/issues/4591).
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_only

from finetune import redact
from finetune.logger import wandb_files, wandb_server
from finetune.logger.flatten import flatten
from finetune.logger.guard import Guard
from finetune.logger.run_name import run_name
from finetune.logger.wandb_history import last_steps

log = logging.getLogger(__name__)
ID_FILE = "wandb_run_id"


class WandbLogger(LightningWandbLogger):
    """A W&B run that belongs to ``run_directory``; ``config`` becomes its configuration, flattened.

    ``server_timeout_s`` limits the first question to the server and ``wandb.init`` each; ``finish_timeout_s`` limits
    the upload of what is left at the end.
    """

    def __init__(
        self,
        run_directory: Path,
        config: dict[str, Any],
        *,
        project: str = "finetune",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["auto", "offline", "disabled"] = "auto",
        log_checkpoint: bool = False,
        log_dataset: Literal["none", "reference", "upload"] = "none",
        server_timeout_s: float = 6.0,
        finish_timeout_s: float = 60.0,
    ) -> None:
        self._directory = Path(run_directory).absolute()
        super().__init__(project=project, save_dir=self._directory)
        default_name, default_group = run_name(self._directory)
        self._secrets = redact.secret_values(os.environ)
        identity = {"name": name or default_name, "group": group or default_group, "tags": tags}
        self._identity: dict[str, Any] = {
            "project": project,
            "entity": entity,
            **redact.redact(identity, self._secrets),
        }
        self._config = config
        self._mode = mode
        self._log_checkpoint, self._log_dataset = log_checkpoint, log_dataset
        self._server_timeout_s, self._finish_timeout_s = server_timeout_s, finish_timeout_s
        self._logged_before: dict[str, int] = {}
        self._step = 0
        self._guard = Guard("W&B")
        self._exit_status = "failed"  # unless Lightning or the verb says otherwise

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started on first use."""
        if self._experiment is None:
            self._experiment = self._start()
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add ``params`` to the run's configuration, flattened and without secrets."""
        plain = vars(params) if isinstance(params, Namespace) else params
        self._send(lambda run: run.config.update(self._clean(plain), allow_val_change=True))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log at ``step``, the training's global step; what a run logged before it was resumed is not logged twice."""
        self._send(lambda run: self._log(run, metrics, step))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Remember the status; Lightning calls this after every fit, validate and test, so the run stays open."""
        self._exit_status = "completed" if status == "success" else "failed"

    @rank_zero_only
    def finish(self, status: str) -> None:
        """Close the run: ``status`` is that of ``result.json``, and everything but ``completed`` is a non-zero exit."""
        atexit.unregister(self._finish_at_exit)
        if self._experiment is None or not self._is_real:
            return
        run = self._experiment
        self._send(lambda run: wandb_files.log_summary(run, self._directory))
        if run.settings._offline or self._server_still_answers():
            self._send(lambda run: wandb_files.log_media(run, self._directory))
            options: Any = {"dataset": self._log_dataset, "checkpoint": self._log_checkpoint}
            self._send(lambda run: wandb_files.log_artifacts(run, self._directory, self._config, **options))
        complete = self._finish_quietly(run, exit_code=0 if status == "completed" else 1)
        if not complete or run.settings._offline or self._guard.lost:
            parts = self._directory / "wandb" / f"*run-*-{run.id}"  # one for each time that the run was resumed
            log.warning("W&B: to upload this run later: wandb sync --include-online %s", parts)

    def _server_still_answers(self) -> bool:
        """Tables and artifacts wait for the server, so ask with a limit first."""
        answer = wandb_server.ask_with_saved_key(self._server_timeout_s)
        if not answer.ok:
            log.warning("W&B: %s; tables and figures stay in %s", answer.reason, self._directory)
        return answer.ok

    @property
    def _is_real(self) -> bool:
        import wandb

        return isinstance(self._experiment, wandb.Run) and not self._experiment.disabled

    def _log(self, run: Any, metrics: Mapping[str, Any], step: int | None) -> None:
        number = self._step if step is None else step
        values = {key: value for key, value in metrics.items() if number > self._logged_before.get(key, -1)}
        if set(values) - {"epoch"}:
            self._step = max(self._step, number)
            run.log(values, step=self._step)

    def _clean(self, config: Mapping[str, Any]) -> dict[str, Any]:
        cleaned: dict[str, Any] = redact.redact(flatten(config), self._secrets)
        return cleaned

    def _send(self, action: Callable[[Any], object]) -> None:
        self._guard.send(lambda: action(self.experiment))

    def _finish_quietly(self, run: Any, exit_code: int) -> bool:
        """Close ``run`` and W&B's own process, which only then has written everything; False: not all is uploaded."""
        import wandb

        try:
            try:
                run.finish(exit_code=exit_code)
            finally:
                wandb.teardown(exit_code=exit_code)
        except TimeoutError:
            log.warning("W&B: the upload did not end within %g s", self._finish_timeout_s)
            return False
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("W&B: the run could not be closed (%s: %s)", type(error).__name__, error)
            return False
        return True

    def _finish_at_exit(self) -> None:
        self.finish(self._exit_status)

    def _start(self) -> Any:
        import wandb

        run_id = self._saved_id()
        self._logged_before = last_steps(self._directory / "wandb", run_id)
        mode, reason = self._choose_mode()
        if mode == "online":
            try:
                run = self._init("online", run_id)
            except (wandb.Error, OSError, TimeoutError) as error:
                mode, reason = "offline", str(error).splitlines()[0] if str(error) else type(error).__name__
                wandb.teardown(exit_code=1)  # otherwise its service holds the id and refuses a second start
        if mode == "offline":
            log.info(
                "W&B: offline%s; the line to upload this run comes at its end", f", because {reason}" if reason else ""
            )
        if mode != "online":
            run = self._init(mode, run_id)
        self._step = (
            max([-1, *self._logged_before.values()]) + 1 if self._logged_before else int(run.starting_step or 0)
        )
        if not self._logged_before and self._step:  # resumed where the earlier part's files are not: ask the server
            self._logged_before = dict.fromkeys(run.summary.keys(), self._step - 1)
        run.config.update(self._clean(self._config), allow_val_change=True)
        run.define_metric("val/*", step_metric="epoch")
        atexit.register(self._finish_at_exit)
        return run

    def _saved_id(self) -> str:
        """The run's id, written before anything is sent; W&B's agent may have chosen it."""
        path = self._directory / ID_FILE
        if path.exists():
            return path.read_text(encoding="utf-8").strip()
        run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        self._directory.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{run_id}\n", encoding="utf-8")
        return run_id

    def _choose_mode(self) -> tuple[Literal["online", "offline", "disabled"], str]:
        """Online only when a server has just accepted the key; else why not."""
        wanted = os.environ.get("WANDB_MODE", "online") if self._mode == "auto" else self._mode
        if wanted == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
            return "disabled", ""
        if wanted in ("offline", "dryrun"):
            return "offline", ""
        answer = wandb_server.ask_with_saved_key(self._server_timeout_s)
        return ("online", "") if answer.ok else ("offline", answer.reason)

    def _init(self, mode: Literal["online", "offline", "disabled"], run_id: str) -> Any:
        import wandb

        settings = wandb.Settings(
            mode=mode,
            root_dir=str(self._directory),
            silent=True,
            console="off",  # train.log is the console's record
            disable_git=True,  # a remote's URL may hold a password, a diff anything
            disable_code=True,
            save_code=False,
            symlink=False,  # the folder can be moved to where there is a network
            x_save_requirements=False,
            x_transaction_log_flush_interval=0.5,  # seconds of metrics that a kill can cost
            init_timeout=self._server_timeout_s,
            finish_timeout=self._finish_timeout_s,
            finish_timeout_raises=True,
        )
        (self._directory / "wandb").mkdir(exist_ok=True)
        with _clean_arguments(self._secrets):
            return wandb.init(**self._identity, id=run_id, resume="allow", settings=settings)


@contextmanager
def _clean_arguments(secret_values: tuple[str, ...]) -> Iterator[None]:
    """Let W&B see the command line without secrets: it keeps ``sys.argv`` in the run's metadata."""
    original = sys.argv
    sys.argv = [redact.redact_text(argument, secret_values) for argument in original]
    try:
        yield
    finally:
        sys.argv = original
