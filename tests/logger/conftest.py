"""W&B for the tests: a stub server, and a service of its own for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.logger.wandb_stub import StubServer, isolate, running_server


@pytest.fixture
def wandb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    """A running stub to which W&B's environment points, with the right key."""
    with running_server(monkeypatch) as server:
        yield server


@pytest.fixture(autouse=True)
def _wandb_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The machine's W&B settings and credentials do not reach the tests, nor does one test's service the next."""
    isolate(monkeypatch, tmp_path)
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
