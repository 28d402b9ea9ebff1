"""What a sweep does, from top to bottom: the space, the directory, the jobs that are left, the engine, the rows.

Called by ``hydra_plugins/finetune_sweep``. The exit code is 0 when every job completed, 1 when one did not, 130 or 143
after a signal; the jobs then have saved and ``sweep.resume=true`` goes on.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import ConfigError
from finetune.sweep.engines import ENGINES, SweepInterrupted
from finetune.sweep.job import Job, read_status
from finetune.sweep.naming import job_names
from finetune.sweep.record import SWEEP_FILE, Record, find_earlier, identity
from finetune.sweep.space import Dimension, dimensions, product, sample

log = logging.getLogger(__name__)
METHODS = ("product", "random", "optuna")


@dataclass(frozen=True)
class Request:
    """A sweep as Hydra hands it over."""

    command: tuple[str, ...]
    """What starts one job, but for its overrides: ``python -m finetune.train``."""
    overrides: tuple[str, ...]
    """What the user typed, ``sweep`` keys left out."""
    hydra_overrides: tuple[str, ...]
    """What every job gets besides, such as ``hydra.job_logging...``."""
    sweep: dict[str, Any]
    engine: str
    options: dict[str, Any]
    """Of the engine."""
    directory: Path
    directory_is_chosen: bool
    config: dict[str, Any]
    """The composed configuration without the swept values, for defaults and the monitor."""
    choices: dict[str, str]
    """Options behind the groups of ``config``."""


def run_sweep(request: Request) -> int:
    """Run what is left of the sweep; gives the exit code.

    Raises:
        ConfigError: a choice in ``sweep`` is wrong.
    """
    method = request.sweep.get("method")
    if method not in METHODS:
        raise ConfigError(f"sweep.method={method}; expected one of {', '.join(METHODS)}")
    space = dimensions(request.sweep["space"] or {}, request.overrides)
    sweep_id = identity([request.command[1:], method, space, request.sweep.get("seed")])
    directory = _directory(request, sweep_id)
    if (directory / SWEEP_FILE).exists() and not request.sweep["resume"]:
        raise ConfigError(
            f"hydra.sweep.dir={directory} holds a sweep; sweep.resume=true goes on with it, or give another directory"
        )
    everything = product(space) if method == "product" else _sampled(space, request.sweep) if method == "random" else []
    record = Record(directory, sweep_id, request.overrides, method)
    try:
        if method == "optuna":
            from finetune.sweep.search import search

            search(request, space, record, sweep_id)
        else:
            run_jobs(request, record, make_jobs(request, directory, everything))
    except SweepInterrupted as interruption:
        log.info("interrupted; the same command with sweep.resume=true goes on. %s", record.summary())
        return 128 + interruption.number
    log.info("%s", record.summary())
    if not record.all_completed:
        log.info("the same command with sweep.resume=true runs what did not complete")
    log.info("leaderboard: python -m finetune.summarize runs=%s", directory)
    return 0 if record.all_completed else 1


def make_jobs(
    request: Request,
    directory: Path,
    overrides_of_jobs: Sequence[Sequence[str]],
    *,
    first: int = 0,
    names: Sequence[str] | None = None,
    environments: Sequence[dict[str, str]] | None = None,
) -> list[Job]:
    """Jobs with their directories and complete commands; one that was stopped goes on from its last checkpoint."""
    hours = request.sweep.get("max_hours")
    not_after = None if hours is None else time.time() + 3600 * hours
    jobs = []
    for index, (overrides, name) in enumerate(zip(overrides_of_jobs, names or job_names(overrides_of_jobs))):
        target = directory / name
        extra = [*request.hydra_overrides, "hydra.verbose=finetune.cli", f"hydra.run.dir={_quoted(str(target))}"]
        if "resume" in request.config and any((target / "checkpoints").glob("*.ckpt")):
            extra.append("resume=auto")
        jobs.append(
            Job(
                number=first + index,
                name=name,
                directory=target,
                overrides=tuple(overrides),
                command=(*request.command, *overrides, *extra),
                working_directory=Path.cwd(),
                environment=environments[index] if environments else {},
                timeout_s=request.sweep["job_timeout_s"],
                not_after=not_after,
            )
        )
    return jobs


def run_jobs(request: Request, record: Record, jobs: Sequence[Job]) -> None:
    """Run those of ``jobs`` that have not completed."""
    record.add_jobs(jobs)
    done = [job for job in jobs if request.sweep["resume"] and read_status(job.directory) == "completed"]
    for job in done:
        record.add_done(job)
    left = [job for job in jobs if job not in done]
    log.info("%d jobs to run, %d done before, in %s", len(left), len(done), record.directory)
    if not left:
        return
    for outcome in ENGINES[request.engine](left, request.options, record.directory):
        record.add(outcome)


def command_of_this_process() -> tuple[str, ...]:
    """How a job is started: as this process was."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return (sys.executable, "-m", spec.name.removesuffix(".__main__"))
    return (sys.executable, os.path.abspath(sys.argv[0]))  # noqa: PTH100 - a link must stay a link


def _directory(request: Request, sweep_id: str) -> Path:
    if not request.sweep["resume"] or request.directory_is_chosen:
        return request.directory
    earlier = find_earlier(request.directory.parent.parent, sweep_id)
    if earlier is None:
        log.info("sweep.resume=true: this sweep was not run before in %s", request.directory.parent.parent)
    return earlier or request.directory


def _sampled(space: Sequence[Dimension], sweep: dict[str, Any]) -> list[list[str]]:
    found = sample(space, sweep["trials"], sweep["seed"])
    if len(found) < sweep["trials"]:
        log.info("sweep.trials=%d: the space has no more than %d combinations", sweep["trials"], len(found))
    return found


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
