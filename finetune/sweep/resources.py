"""A machine's cores and GPUs, divided between the jobs that run at the same time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from finetune.sweep.job import Slot


def slots(
    n_jobs: int, cores: Sequence[int], gpus: Sequence[str], *, threads: int | None, gpus_per_job: int | None
) -> list[Slot]:
    """One slot per concurrent job.

    Cores are dealt out evenly; with more jobs than cores, jobs share. GPUs: ``gpus_per_job`` each, or an equal share
    (at least one, shared when there are fewer than jobs); with none, jobs keep the environment as it is.
    """
    per_job = gpus_per_job if gpus_per_job is not None else max(1, len(gpus) // n_jobs)
    dealt = []
    for index in range(n_jobs):
        own_cores = tuple(cores[index::n_jobs]) or (cores[index % len(cores)],)
        own_gpus = (
            tuple(gpus[(index * per_job + offset) % len(gpus)] for offset in range(min(per_job, len(gpus))))
            if gpus
            else None
        )
        dealt.append(Slot(own_cores, own_gpus, threads or len(own_cores)))
    return dealt


def visible_gpus() -> list[str]:
    """GPUs that this process may use: ``CUDA_VISIBLE_DEVICES``, or all that ``nvidia-smi`` lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() and name.strip() != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(index) for index, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]
