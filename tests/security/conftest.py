"""Commands run in this process, hostile files, and a marker that appears when code of theirs has run."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image


class Bomb:
    """Unpickling it touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for number in range(6):
            path = tmp_path / "images" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


@pytest.fixture
def card() -> dict[str, Any]:
    """The plain entry of a sound checkpoint."""
    from finetune.checkpoint import describe
    from finetune.preprocessing import Preprocessing

    return describe(
        task="multiclass",
        classes=("cat", "dog"),
        preprocessing=Preprocessing(size=(32, 32)),
        config={
            "seed": 0,
            "data": {"_target_": "finetune.data.folder.FolderData", "path": "images"},
            "backbone": {
                "_target_": "finetune.backbone.timm_model.create_backbone",
                "name": "test_resnet.r160_in1k",
                "weights": "none",
            },
            "head": {"_target_": "finetune.head.linear.LinearHead", "dropout": 0.0},
        },
        backbone={"name": "test_resnet.r160_in1k", "weights": ""},
        versions={},
    )


@pytest.fixture
def checkpoint_with(tmp_path: Path) -> Callable[..., Path]:
    """``checkpoint_with(card, extra=...)``: a checkpoint as a knowing attacker writes it, with a seal that is right."""

    def write(card: Any, **extra: Any) -> Path:
        from finetune import build
        from finetune.checkpoint import write_checkpoint

        backbone = build.backbone(
            {
                "_target_": "finetune.backbone.timm_model.create_backbone",
                "name": "test_resnet.r160_in1k",
                "weights": "none",
            },
            32,
        )
        network = build.network(backbone, {"_target_": "finetune.head.linear.LinearHead"}, 2)
        state = {f"network.{name}": value for name, value in network.state_dict().items()}
        path = tmp_path / "run" / "checkpoints" / "best.ckpt"
        payload = {"state_dict": state, "finetune": card, "global_step": 1, "epoch": 0, "optimizer_states": []}
        write_checkpoint({**payload, **extra}, path)
        return path

    return write


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """``command("evaluate", "ckpt=...", ...)``: exit code and what was printed."""

    def run(verb: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"finetune.{verb}", *arguments])
        monkeypatch.setattr("finetune.interpreter.leave", sys.exit)  # the process that it would end is pytest's
        handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
        code = 0
        try:
            importlib.import_module(f"finetune.{verb}").main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            GlobalHydra.instance().clear()
            for handler in set(logging.getLogger().handlers) - set(handlers):
                handler.close()
            logging.getLogger().handlers[:] = handlers
            logging.getLogger().setLevel(level)
            logging.disable(logging.NOTSET)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return run


def hostile_bytes(marker: Path) -> bytes:
    """A torch file whose pickle runs a command."""
    import io

    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "boom": Bomb(marker)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def hostile(marker: Path) -> bytes:
    return hostile_bytes(marker)
