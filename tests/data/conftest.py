"""A folder of everything that has ever broken an image loader, with what is expected of each file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def _load(name: str) -> object:
    """A helper module of this folder (tests are imported by path, not as a package)."""
    spec = importlib.util.spec_from_file_location(f"data_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def write_hostile() -> Callable[[Path], dict[bytes, str]]:
    """``write_hostile(folder)`` fills the folder; gives name -> expected verdict (see hostile.py)."""
    return _load("hostile").write  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def photograph() -> Callable[..., object]:
    """``photograph(seed, height=, width=)``: an image with the spectrum of a photograph, uint8 H W 3."""
    return _load("pictures").photograph  # type: ignore[attr-defined]
