"""What a tracker calls a run: the job's overrides within its sweep, or the time at which a single run started."""

from __future__ import annotations

from pathlib import Path

SWEEP_FILES = ("multirun.yaml", "sweep.json")


def run_name(run_directory: Path) -> tuple[str, str | None]:
    """Name and group: ``(lr=0.01,seed=1, 2026-11-21/04-17-37)`` in a sweep, ``(2026-11-21/04-17-37, None)`` else.

    A job's directory is named by its overrides; its parent holds the sweep's own file.
    """
    parent = run_directory.parent
    if any((parent / name).exists() for name in SWEEP_FILES):
        return run_directory.name, f"{parent.parent.name}/{parent.name}"
    return f"{parent.name}/{run_directory.name}", None
