"""Where jobs run: threads on this machine, or an engine that people already have (joblib, submitit, Ray).

Each engine gets ``run_job`` and the jobs, nothing of ours: a job is a process of its own wherever it runs, so one that
is killed costs its own row only. The engine's packages are imported here, when it is chosen.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType
from typing import Any

from finetune.errors import ConfigError, FinetuneError
from finetune.sweep.job import Job, Outcome, Slot, run_job
from finetune.sweep.resources import slots, visible_gpus

log = logging.getLogger(__name__)
Engine = Callable[[Sequence[Job], dict[str, Any], Path], Iterator[Outcome]]


class SweepInterrupted(BaseException):
    """SIGTERM or SIGINT reached the sweep; its jobs were asked to save and have ended."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by signal {number}")
        self.number = number


def local(jobs: Sequence[Job], options: dict[str, Any], _directory: Path) -> Iterator[Outcome]:
    """``n_jobs`` at a time on this machine, each on its share of cores and GPUs. A signal is handed on to the jobs."""
    n_jobs = min(int(options["n_jobs"]), len(jobs))
    cores = sorted(os.sched_getaffinity(0))
    free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
    for slot in slots(
        n_jobs, cores, visible_gpus(), threads=options["threads_per_job"], gpus_per_job=options["gpus_per_job"]
    ):
        free.put(slot)
    processes: set[int] = set()
    received: list[int] = []

    def work(job: Job) -> Outcome:
        if received:
            return Outcome(job.number, "pending", None, 0.0)
        slot = free.get()
        try:
            return run_job(job, slot, processes)
        finally:
            free.put(slot)

    def hand_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for pid in list(processes):
            os.kill(pid, signal.SIGTERM)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = (
        {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)} if in_main_thread else {}
    )
    try:
        with ThreadPoolExecutor(n_jobs) as pool:
            yield from (future.result() for future in as_completed([pool.submit(work, job) for job in jobs]))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise SweepInterrupted(received[0])


def joblib(jobs: Sequence[Job], options: dict[str, Any], _directory: Path) -> Iterator[Outcome]:
    """Workers of joblib on this machine."""
    parallel = _import("joblib", "sweep")
    n_jobs = int(options["n_jobs"])
    workers = os.cpu_count() or 1 if n_jobs == -1 else n_jobs
    slot = Slot(threads=options["threads_per_job"] or max(1, len(os.sched_getaffinity(0)) // workers))
    tasks = (parallel.delayed(run_job)(job, slot) for job in jobs)
    yield from parallel.Parallel(n_jobs=n_jobs, backend="loky", return_as="generator_unordered", batch_size=1)(tasks)


def submitit(jobs: Sequence[Job], options: dict[str, Any], directory: Path) -> Iterator[Outcome]:
    """submitit: SLURM's array jobs, or processes of this machine with ``cluster: local``."""
    package = _import("submitit", "cluster")
    executor = package.AutoExecutor(
        folder=directory / ".submitit" / "%j",
        cluster=options["cluster"],
        **{f"{options['cluster']}_{key}": value for key, value in options["executor"].items()},
    )
    executor.update_parameters(**options["parameters"])
    slot = Slot(threads=options["threads_per_job"])
    submitted = executor.map_array(run_job, jobs, [slot] * len(jobs))
    for job, handle in zip(jobs, submitted):
        try:
            yield handle.result()
        except Exception as error:  # noqa: BLE001 - the engine lost this job; the others have their own
            log.warning("submitit lost job %d (%s)", job.number, type(error).__name__)
            yield Outcome(job.number, "failed", None, 0.0, f"lost by submitit: {(str(error).splitlines() or [''])[0]}")


def ray(jobs: Sequence[Job], options: dict[str, Any], _directory: Path) -> Iterator[Outcome]:
    """Ray: a running cluster by ``address``, or an instance on this machine."""
    package = _import("ray", "cluster")
    threads = int(options["threads_per_job"] or 1)
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # a busy machine takes longer than Ray's 30 s
    try:
        package.init(address=options["address"], include_dashboard=False, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises bare Exceptions
        reason = (str(error).splitlines() or [""])[0]
        raise FinetuneError(
            f"hydra/launcher=ray: Ray does not start (hydra.launcher.address={options['address']}): {reason}"
        ) from error
    try:
        remote = package.remote(num_cpus=options["cpus_per_job"], num_gpus=options["gpus_per_job"], max_retries=1)(
            run_job
        )
        waiting = {remote.remote(job, Slot(threads=threads)): job for job in jobs}
        while waiting:
            (done, *_), _ = package.wait(list(waiting), num_returns=1)
            job = waiting.pop(done)
            try:
                yield package.get(done)
            except package.exceptions.RayError as error:
                yield Outcome(job.number, "failed", None, 0.0, f"lost by Ray: {(str(error).splitlines() or [''])[0]}")
    finally:
        package.shutdown()


ENGINES: dict[str, Engine] = {"local": local, "joblib": joblib, "submitit": submitit, "ray": ray}


def _import(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"hydra/launcher with engine={name} needs a package: pip install 'finetune[{extra}]'"
        ) from error
