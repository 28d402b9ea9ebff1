"""Parts built from their YAML and nothing else: the contract holds for the file itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

NOUNS = ("backbone", "callback", "freeze", "head", "logger", "loss", "optimizer", "scheduler", "trainer", "transform")
CONF = Path(__file__).resolve().parents[2] / "conf"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``def test_...(head)`` runs once per ``conf/head/*.yaml``: a new part is tested as soon as it has a file.

    ``loss=auto`` builds nothing itself: it names one of the others.
    """
    for noun in NOUNS:
        if noun in metafunc.fixturenames:
            names = sorted(path.stem for path in (CONF / noun).glob("*.yaml") if (noun, path.stem) != ("loss", "auto"))
            assert names, f"conf/{noun} holds no YAML"
            metafunc.parametrize(noun, names)


def build_part(noun: str, yaml: str, /, *arguments: Any, **overrides: Any) -> Any:
    """``build_part("head", "linear", 8, 3, dropout=0.5)`` calls the YAML's target with what is known at run time."""
    keys = dict(OmegaConf.to_container(OmegaConf.load(CONF / noun / f"{yaml}.yaml")))
    module, _, attribute = keys.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), attribute)(*arguments, **{**keys, **overrides})


@pytest.fixture
def part() -> Callable[..., Any]:
    """``build_part`` as a fixture."""
    return build_part
