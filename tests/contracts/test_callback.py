"""What every callback promises: a run with it completes, continues from its checkpoint, and holds plain data only."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from finetune import training
from finetune.config import CONF_DIR
from finetune.run_directory import RunDirectory

TINY = (
    "backbone.name=test_resnet", "backbone.weights=none", "data.image_size=32", "data.batch_size=4",
    "data.num_workers=0", "trainer=cpu", "trainer.precision=32-true", "logger=csv", "report=none", "cache=none",
)  # fmt: skip


def train(directory: Path, *overrides: str) -> dict[str, object]:
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[*TINY, *overrides])
    GlobalHydra.instance().clear()
    directory.mkdir(exist_ok=True)
    return training.train(cfg, RunDirectory(directory), {"freeze": "none", "head": "linear"})


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_a_run_with_it_completes_and_goes_on_for_more_epochs(callback, tmp_path, image_folder):
    data = image_folder(n=4)
    typed = (f"data.path={data}", f"callback=[{callback}]")
    assert train(tmp_path / "run", *typed, "trainer.max_epochs=1")["status"] == "completed"
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 0
    result = train(tmp_path / "run", *typed, "trainer.max_epochs=2", "resume=auto")
    assert result["status"] == "completed"
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
