"""Starting the stub application as a user starts ``finetune.train``."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent


class Sweep(NamedTuple):
    """What a finished sweep left."""

    exit_code: int
    output: str
    directory: Path
    rows: list[dict[str, str]]

    def starts(self) -> list[str]:
        """Names of the jobs, once for each time they were started."""
        return sorted(
            path.parent.name for path in self.directory.glob("*/starts.txt") for _ in path.read_text().splitlines()
        )


class Stub:
    """Runs sweeps of the stub application in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "FINETUNE_CONF": str(REPOSITORY / "conf"), "PYTHONPATH": str(REPOSITORY)}
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(HERE / "stub_app.py"), "-m", *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *arguments: str) -> Sweep:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        directories = sorted(self.folder.glob("multirun/*/*"))
        if not directories:
            return Sweep(process.returncode, output, self.folder, [])
        directory = max(directories, key=lambda path: (path / "sweep.csv").stat().st_mtime)
        with (directory / "sweep.csv").open(newline="") as file:
            return Sweep(process.returncode, output, directory, list(csv.DictReader(file)))


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    return Stub(tmp_path)
