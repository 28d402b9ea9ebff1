"""One job of a sweep: a command in a process of its own, its log beside its result, and a status whatever happens.

A job that raises, exits, is killed or never starts ends as a row with a status; nothing of it reaches the sweep. The
same function runs a job on this machine, in a joblib worker, in a SLURM job and in a Ray task. Costs one Python start.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finetune.run_directory import write_json

Status = Literal["completed", "failed", "interrupted", "pending"]
LOG_FILE, LOCK_FILE, RESULT_FILE = "job.log", "job.lock", "result.json"
_NOISE = ("Set the environment variable HYDRA_FULL_ERROR", " ")
_SET_PARENT_DEATH_SIGNAL = 1
_ASKED_TO_LEAVE = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)


@dataclass(frozen=True)
class Job:
    """What a worker needs: ``command`` is complete but for the resources, ``environment`` is added to the worker's."""

    number: int
    name: str
    directory: Path
    overrides: tuple[str, ...]
    command: tuple[str, ...]
    working_directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    not_after: float | None = None
    """Seconds since the epoch after which the job is not begun any more."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended; ``value`` is its monitor, when it has one."""

    number: int
    status: Status
    exit_code: int | None
    seconds: float
    error: str = ""
    monitor: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Slot:
    """What one of several concurrent jobs may use; None: whatever the engine gives."""

    cores: tuple[int, ...] | None = None
    gpus: tuple[str, ...] | None = None
    threads: int | None = None


def read_status(directory: Path) -> str:
    """The status in the directory's ``result.json``; empty when there is none that can be read."""
    return str(_read_result(directory).get("status", ""))


def run_job(job: Job, slot: Slot, running: set[int] | None = None) -> Outcome:
    """Run the command of ``job`` to its end; its process id is in ``running`` meanwhile. Raises nothing of the job's.

    A process of an interrupted sweep that still works in the job's directory holds its lock, and is waited for.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with (job.directory / LOCK_FILE).open("w") as lock, (job.directory / LOG_FILE).open("ab") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read_status(job.directory) == "completed":
            return outcome(job, 0, time.monotonic() - begun)
        if job.not_after is not None and time.time() > job.not_after:
            return Outcome(job.number, "pending", None, 0.0, "not begun: sweep.max_hours is over")
        process = subprocess.Popen(
            job.command,
            cwd=job.working_directory,
            env=_environment(job, slot),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),),  # the lock lives as long as the job does
            preexec_fn=_prepare(slot.cores),  # noqa: PLW1509 - two system calls, prepared before the fork
        )
        if running is not None:
            running.add(process.pid)
        try:
            exit_code = process.wait(job.timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            exit_code = process.wait()
            _write_failure(job, f"stopped after {job.timeout_s:g} s (sweep.job_timeout_s)")
        finally:
            if running is not None:
                running.discard(process.pid)
    return outcome(job, exit_code, time.monotonic() - begun)


def outcome(job: Job, exit_code: int, seconds: float) -> Outcome:
    """What became of ``job``; a result that the job could not write itself is written here."""
    result = _read_result(job.directory)
    status: Status | None = result.get("status")
    if status not in ("completed", "failed", "interrupted"):
        status = "interrupted" if exit_code in _ASKED_TO_LEAVE else "failed"  # it may be asked before it can answer
        _write_failure(job, _how_it_ended(job, exit_code), status)
        result = _read_result(job.directory)
    if status == "completed" and exit_code != 0:  # its work is whole; what failed came after
        result["error"] = _how_it_ended(job, exit_code)
    monitor = result.get("monitor") or {}
    return Outcome(
        job.number,
        status,
        exit_code,
        seconds,
        str(result.get("error", "")),
        monitor.get("name", ""),
        monitor.get("value"),
    )


def _how_it_ended(job: Job, exit_code: int) -> str:
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    lines = (job.directory / LOG_FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    told = [line.strip() for line in lines if line.strip() and not line.startswith(_NOISE)]
    return f"exit code {exit_code} before the job was done; the end of {LOG_FILE}: {told[-1] if told else '(empty)'}"


def _write_failure(job: Job, error: str, status: Status = "failed") -> None:
    write_json(job.directory / RESULT_FILE, {**_read_result(job.directory), "status": status, "error": error})


def _read_result(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _environment(job: Job, slot: Slot) -> dict[str, str]:
    environment = {**os.environ, **job.environment, "PYTHONUNBUFFERED": "1"}
    environment.pop("WANDB_SERVICE", None)  # a job has a W&B process of its own
    if slot.threads is not None:
        environment |= {
            name: str(slot.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        }
    if slot.gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
    return environment


def _prepare(cores: tuple[int, ...] | None) -> Callable[[], None]:
    """What a new process does first: keep to its cores, and end gracefully when the sweep is killed."""
    set_process_option = ctypes.CDLL(None).prctl

    def prepare() -> None:
        set_process_option(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if cores:
            os.sched_setaffinity(0, cores)

    return prepare
