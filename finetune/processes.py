"""Which of several processes this one is, known before any of them has met the others, and how long it has lived.

Under torchrun and SLURM, and for the processes that Lightning starts itself, the environment says so. The first process
writes the run's files, talks to the trackers and evaluates at the end; the others only help to train.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def is_first() -> bool:
    """Whether this is the first process of its run, or the only one."""
    return next((int(os.environ[name]) == 0 for name in _RANKS if os.environ.get(name)), True)


def age_s() -> float:
    """Seconds since the system started this process, to a hundredth; 0 where there is no /proc to ask."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22, starttime, in ticks since the machine started
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
