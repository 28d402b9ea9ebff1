"""int8 against fp32 on two real sets: scikit-learn's handwritten digits, and the sample set with any trained checkpoint.

    python -m bench.int8                                # digits: ImageNet features of EfficientNet-Lite0, fitted head
    python -m bench.int8 ckpt=RUN/checkpoints/best.ckpt data.split=test

Prints accuracy, size and latency of fp32 and int8 ONNX, as ratios measured in one run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.export_matrix import HEADS, _fit

SIZE_PX = 64


def main() -> None:
    """Export both precisions and print one row each."""
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(arguments.pop("ckpt", "")) if "ckpt" in arguments else _digits(Path(folder))
        rest = [f"{key}={value}" for key, value in arguments.items()]
        exact = _export(checkpoint, Path(folder) / "fp32", "fp32", rest)
        small = _export(checkpoint, Path(folder) / "int8", "int8", rest)
    parity, speed = small["parity"], small["speed"]
    print(f"images            {parity['images']}")
    print(f"accuracy          fp32 {parity['accuracy_model']:.4f}, int8 {parity['accuracy_artefact']:.4f}")
    print(
        f"equal decisions   {parity['agreement']:.2%}, probabilities differ by at most {parity['max_difference']:.3f}"
    )
    print(f"size              x {speed['artefact_mib'] / exact['speed']['artefact_mib']:.2f} of fp32")
    print(f"latency           x {speed['artefact_ms'] / exact['speed']['artefact_ms']:.2f} of fp32")


def _export(checkpoint: Path, output: Path, precision: str, overrides: list[str]) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    from finetune.config import CONF_DIR
    from finetune.exporting import export

    chosen = [f"exporter.precision={precision}", "exporter.max_accuracy_drop=1", "latency_runs=50", *overrides]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("export", overrides=["exporter=onnx", f"ckpt={checkpoint}", f"output={output}", *chosen])
    return export(cfg).metadata


def _digits(root: Path) -> Path:
    """1,000 digits in folders, half of them for training, and a checkpoint with a head fitted on frozen features."""
    from sklearn.datasets import load_digits

    from finetune import build
    from finetune.checkpoint import describe, write_checkpoint
    from finetune.data.image import read_image

    digits = load_digits()
    for number in range(1000):
        split = "train" if number % 2 else "val"
        path = root / "digits" / split / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15.9).astype(np.uint8)).resize((SIZE_PX, SIZE_PX)).save(path)
    data = {"_target_": "finetune.data.folder.FolderData", "path": str(root / "digits"), "image_size": SIZE_PX}
    extractor = {"_target_": "finetune.backbone.timm_model.create_backbone", "name": "tf_efficientnet_lite0"}
    backbone = build.backbone({**extractor, "weights": "pretrained"}, SIZE_PX)
    table = build.part(data, 0).load()
    rows = table.rows("train")
    images = np.stack([backbone.preprocessing.resize_crop(read_image(table.path(int(row)))) for row in rows])
    network = build.network(backbone, HEADS["linear"], len(table.classes)).eval()
    with torch.no_grad():
        images_BCHW = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        features_ND = network.backbone(backbone.preprocessing.normalize(images_BCHW))
    _fit(network.head, features_ND, table.targets[rows], len(table.classes))
    card = describe(
        task="multiclass",
        classes=table.classes,
        preprocessing=backbone.preprocessing,
        config={"seed": 0, "data": data, "backbone": {**extractor, "weights": "none"}, "head": HEADS["linear"]},
        backbone={"name": extractor["name"], "weights": backbone.weights},
        versions={},
    )
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    path = root / "run" / "checkpoints" / "best.ckpt"
    write_checkpoint({"state_dict": state, "finetune": card, "global_step": 0, "epoch": 0}, path)
    return path


if __name__ == "__main__":
    main()
