"""No page (``report=none``): for sweeps, where the leaderboard is looked at and two hundred pages are not."""

from __future__ import annotations

from pathlib import Path

from finetune.report.subject import Subject


class NoReport:
    """Takes the same calls as ``HtmlReport`` and writes nothing."""

    def write(self, run_directory: Path, subject: Subject) -> None:
        """Nothing is written."""
