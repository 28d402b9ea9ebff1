"""A timm directory, read by timm alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.classifier import Classifier
from finetune.errors import ExportError

TIMM_ALONE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import timm, torch
from timm.data import create_dataset, create_loader, resolve_model_data_config

model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
config = resolve_model_data_config(model)
names = list(model.pretrained_cfg["label_names"])
class_map = {name: number for number, name in enumerate(names)}
dataset = create_dataset("", root=sys.argv[2], split="val", class_map=class_map)
loader = create_loader(dataset, batch_size=5, use_prefetcher=False, num_workers=0, **config)
with torch.no_grad():
    scores = torch.cat([model(images) for images, _ in loader])
targets = torch.cat([targets for _, targets in loader])
assert not any(name.startswith("finetune") for name in sys.modules)
files = dataset.filenames(basename=False, absolute=True)
print(json.dumps({"names": names, "files": files, "scores": scores.tolist(), "targets": targets.tolist()}))
"""


@pytest.mark.parametrize("backbone", ["test_resnet.r160_in1k", "test_vit.r160_in1k"])
def test_timm_alone_gives_the_scores_that_we_give(
    backbone: str, run_of: Callable[..., Path], export_of: Callable[..., Any]
) -> None:
    ckpt = run_of(backbone=backbone)
    artefact = export_of(ckpt, "exporter=timm")
    images = ckpt.parent.parent / "images" / "val"
    finished = subprocess.run(
        [sys.executable, "-c", TIMM_ALONE, str(artefact.directory), str(images)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    theirs = json.loads(finished.stdout)
    classifier = Classifier.load(ckpt)
    assert theirs["names"] == list(classifier.classes)
    (ours,) = [chunk.logits_BK for chunk in classifier.scores(theirs["files"], batch_size=100)]
    np.testing.assert_allclose(np.array(theirs["scores"]), ours, atol=2e-4)
    labels = [classifier.classes.index(Path(file).parent.name) for file in theirs["files"]]
    assert theirs["targets"] == labels, "timm numbers the classes as the model does"


@pytest.mark.parametrize("head", ["mlp", "cosine"])
def test_head_that_timm_does_not_have_is_refused(
    head: str, run_of: Callable[..., Path], export_of: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"one linear layer.*use exporter=onnx"):
        export_of(run_of(head=head), "exporter=timm")
    assert list(tmp_path.iterdir()) == []


def test_upload_failure_keeps_the_artefact(
    run_of: Callable[..., Path], export_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(
        ExportError, match=r"push_to_hub=me/model: the upload failed \(offline\); the artefact is complete"
    ):
        export_of(run_of(), "exporter=timm", "exporter.push_to_hub=me/model")
    (directory,) = tmp_path.iterdir()
    assert (directory / "metadata.json").is_file()
