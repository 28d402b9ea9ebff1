"""Names of a sweep's jobs: the overrides that differ, fit for a file system, the same at every run of the sweep."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

_LONGEST = 160
_UNFIT = re.compile(r"[^A-Za-z0-9._=,+@-]+")


def job_names(overrides_of_jobs: Sequence[Sequence[str]]) -> list[str]:
    """One name per job, all different: ``optimizer.lr=0.01,seed=1``; long or ambiguous ones end in a hash."""
    common = set.intersection(*(set(overrides) for overrides in overrides_of_jobs)) if overrides_of_jobs else set()
    single = len(overrides_of_jobs) == 1
    names = [_fit(overrides if single else [text for text in overrides if text not in common], overrides)
             for overrides in overrides_of_jobs]  # fmt: skip
    counts = Counter(name.lower() for name in names)  # some file systems do not tell case apart
    return [
        name if counts[name.lower()] == 1 else f"{name}-{_digest(overrides)}"
        for name, overrides in zip(names, overrides_of_jobs)
    ]


def _fit(shown: Sequence[str], overrides: Sequence[str]) -> str:
    text = ",".join(override.lstrip("+~") for override in shown)
    name = _UNFIT.sub("-", text).strip("-.") or "job"
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{_digest(overrides)}"


def _digest(overrides: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
