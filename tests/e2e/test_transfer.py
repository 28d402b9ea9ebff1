"""Transfer is real: the default recipe on ImageNet's weights against the best linear use of random features."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from finetune.backbone.timm_model import create_backbone


def random_features(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of the same network with random weights, and the class of each image."""
    torch.manual_seed(0)
    backbone = create_backbone(128, name="tf_efficientnet_lite0", weights="none")
    paths = sorted(folder.glob("*/*.jpg"))
    images = [backbone.preprocessing.resize_crop(np.asarray(Image.open(path).convert("RGB"))) for path in paths]
    images_BCHW = torch.tensor(np.stack(images)).permute(0, 3, 1, 2)
    with torch.no_grad():
        features_BD = backbone.module.eval()(backbone.preprocessing.normalize(images_BCHW))
    return features_BD.numpy(), np.array([path.parent.name for path in paths])


@pytest.mark.slow
def test_the_default_recipe_beats_a_probe_of_random_features_by_a_quarter(clipart, tmp_path):
    features, labels = random_features(clipart / "train")
    strengths = {"logisticregression__C": np.logspace(-4, 1, 6)}
    probe = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)), strengths, cv=3)
    probe.fit(features, labels)
    features, labels = random_features(clipart / "test")
    baseline = probe.score(features, labels)
    command = [sys.executable, "-m", "finetune.train", f"data.path={clipart}", "backbone=efficientnet_lite0"]
    command += ["data.image_size=128", "logger=csv", "report=none", f"hydra.run.dir={tmp_path}"]
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(clipart.parents[1])})
    accuracy = json.loads((tmp_path / "result.json").read_text())["test"]["accuracy"]
    assert accuracy >= baseline + 0.25, (accuracy, baseline)
