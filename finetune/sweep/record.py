"""What a sweep writes about itself: ``sweep.json`` (what it is) and ``sweep.csv`` (a row per job)."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from finetune.redact import redact_text
from finetune.run_directory import write_json
from finetune.sweep.job import Job, Outcome, outcome

log = logging.getLogger(__name__)
SWEEP_FILE, ROWS_FILE = "sweep.json", "sweep.csv"


def identity(parts: Iterable[Any]) -> str:
    """A name for what a sweep does, the same whenever it is started again."""
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True, default=str).encode()).hexdigest()[:12]


def find_earlier(root: Path, sweep_id: str) -> Path | None:
    """The newest directory up to two levels below ``root`` that the same sweep has written."""
    found = []
    for pattern in (f"*/{SWEEP_FILE}", f"*/*/{SWEEP_FILE}"):
        for path in root.glob(pattern):
            try:
                same = json.loads(path.read_text(encoding="utf-8")).get("id") == sweep_id
            except (OSError, ValueError):
                continue
            if same:
                found.append(path)
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


class Record:
    """The rows of one sweep, on disk after every job."""

    def __init__(self, directory: Path, sweep_id: str, overrides: Sequence[str], method: str) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        clean = [redact_text(override) for override in overrides]
        write_json(directory / SWEEP_FILE, {"id": sweep_id, "method": method, "overrides": clean})
        self._jobs: dict[int, Job] = {}
        self.outcomes: dict[int, Outcome] = {}

    def add_jobs(self, jobs: Iterable[Job]) -> None:
        """Jobs that are to be run; they have a row from now on."""
        self._jobs.update({job.number: job for job in jobs})
        self._write()

    def add(self, ended: Outcome) -> None:
        """A job has ended."""
        self.outcomes[ended.number] = ended
        self._write()
        job = self._jobs[ended.number]
        value = "" if ended.value is None else f"  {ended.monitor} {ended.value:.4f}"
        log.info("%-11s %7.1f s  %s%s", ended.status, ended.seconds, job.name, value)
        if ended.error:
            log.info("            %s (%s)", redact_text(ended.error), job.directory / "job.log")

    def add_done(self, job: Job) -> None:
        """A job whose result is there from an earlier run of the sweep."""
        self.outcomes[job.number] = outcome(job, 0, 0.0)
        self._write()

    def summary(self) -> str:
        """``3 completed, 2 failed of 5 jobs``."""
        counts = Counter(ended.status for ended in self.outcomes.values())
        counts["pending"] += len(self._jobs) - len(self.outcomes)
        named = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        return f"{named} of {len(self._jobs)} jobs in {self.directory}"

    @property
    def all_completed(self) -> bool:
        """Whether every job has done its work."""
        return len(self.outcomes) == len(self._jobs) and all(
            ended.status == "completed" for ended in self.outcomes.values()
        )

    def _write(self) -> None:
        part = self.directory / f"{ROWS_FILE}.part"
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ["job", "status", "exit_code", "seconds", "monitor", "value", "directory", "overrides", "error"]
            )
            for number, job in sorted(self._jobs.items()):
                found = self.outcomes.get(number) or Outcome(number, "pending", None, 0.0)
                exit_code = "" if found.exit_code is None else found.exit_code
                value = "" if found.value is None else found.value
                overrides = " ".join(redact_text(override) for override in job.overrides)
                row = [number, found.status, exit_code, f"{found.seconds:.3f}", found.monitor, value]
                writer.writerow([*row, job.directory.name, overrides, redact_text(found.error)])
        part.replace(self.directory / ROWS_FILE)
