"""Which of several processes this one is, known before any of them has met the others.

Under torchrun and SLURM, and for the processes that Lightning starts itself, the environment says so. The first process
writes the run's files, talks to the trackers and evaluates at the end; the others only help to train.
"""

from __future__ import annotations

import os

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def is_first() -> bool:
    """Whether this is the first process of its run, or the only one."""
    return next((int(os.environ[name]) == 0 for name in _RANKS if os.environ.get(name)), True)
