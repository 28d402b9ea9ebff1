"""Predict writes the same rows whichever file the model comes as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from finetune.config import CONF_DIR
from finetune.predicting import predict


def rows(model: Path, images: Path, out: Path) -> pd.DataFrame:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("predict", overrides=[f"ckpt={model}", f"input={images}", "device=cpu", "batch_size=7"])
    return pd.read_csv(predict(cfg, out, ("ckpt", "input")).path, keep_default_na=False)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_checkpoint_and_every_artefact_give_the_same_rows(
    run_of: Callable[..., Path], export_of: Callable[..., Any], tmp_path: Path, task: str
) -> None:
    ckpt = run_of(task=task)
    images = ckpt.parent.parent / "images"
    expected = rows(ckpt, images, tmp_path / "ckpt")
    figures = [name for name in expected if name == "confidence" or name.startswith("prob_")]
    assert len(expected) == 36
    for exporter in ("onnx", "safetensors", "timm"):
        artefact = export_of(ckpt, f"exporter={exporter}")
        found = rows(artefact.directory, images, tmp_path / f"rows-{exporter}")
        assert list(found) == list(expected)
        for column in ("path", "label", "prediction"):
            assert list(found[column]) == list(expected[column])
        largest = float(np.abs(found[figures].to_numpy() - expected[figures].to_numpy()).max())
        print(f"{exporter}, {task}: probabilities differ by at most {largest:.1e}")
        assert largest < 1e-5
