"""Every exporter over four families of networks, every head, both tasks: parity, sizes and latencies.

    make export-matrix                                  # writes docs/export-matrix.md
    python -m bench.export_matrix backbone=vit          # one family, printed only

ResNet-50, ViT, ConvNeXt and EfficientNet on the sample set at 128 px. EfficientNet-Lite0 has its ImageNet weights (they
come in a package), the others random ones; every head is fitted on frozen features by ridge regression, so that scores
have margins as after a training. Multi-label: each picture's kind and what it is (animal, food, ...). Parity is what
``finetune.export`` itself measured, through each artefact's own runtime, after opening it again.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "data" / "clipart"
SIZE_PX = 128
BACKBONES = {
    "vit": "vit_tiny_patch16_224",
    "convnext": "convnext_atto",
    "efficientnet": "tf_efficientnet_lite0",
    "resnet": "resnet50",
}
HEADS = {
    "linear": {"_target_": "finetune.head.linear.LinearHead", "dropout": 0.0},
    "mlp": {"_target_": "finetune.head.mlp.MLPHead", "hidden": 256, "dropout": 0.1},
    "cosine": {"_target_": "finetune.head.cosine.CosineHead", "scale": 16.0, "dropout": 0.0},
}
EXPORTERS = {
    "safetensors": ["exporter=safetensors"],
    "timm": ["exporter=timm"],
    "torch_export": ["exporter=torch_export"],
    "torchscript": ["exporter=torchscript"],
    "onnx": ["exporter=onnx"],
}
ONCE = {
    "onnx, graph": ["exporter=onnx", "exporter.preprocess=graph"],
    "onnx fp16": ["exporter=onnx", "exporter.precision=fp16", "exporter.max_accuracy_drop=1"],
    "onnx int8": ["exporter=onnx", "exporter.precision=int8", "exporter.max_accuracy_drop=1"],
}
KINDS = {
    "beverages": "food", "birds": "animal", "breads": "food", "bugs": "animal", "cards": "paper", "flowers": "plant",
    "hats": "clothing", "homes": "building",
}  # fmt: skip


def main() -> None:
    """Run the matrix and write or print the tables."""
    chosen = dict(argument.split("=", 1) for argument in sys.argv[1:]).get("backbone")
    families = [chosen] if chosen else list(BACKBONES)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for family in families for row in _family(Path(folder), family)]
    page = _page(rows)
    print(page)
    if chosen is None:
        (ROOT / "docs" / "export-matrix.md").write_text(page, encoding="utf-8")


def _family(folder: Path, family: str) -> list[dict[str, Any]]:
    from finetune import build

    torch.manual_seed(0)
    weights = "pretrained" if family == "efficientnet" else "none"
    config = {
        "_target_": "finetune.backbone.timm_model.create_backbone",
        "name": BACKBONES[family],
        "weights": weights,
    }
    backbone = build.backbone(config, SIZE_PX)
    backbone.module.eval()
    features: dict[str, torch.Tensor] = {}
    rows = []
    for task in ("multiclass", "multilabel"):
        for head in HEADS:
            checkpoint = _checkpoint(folder / family / task / head, config, backbone, head, task, features)
            is_first = (head, task) == ("linear", "multiclass")
            exporters = EXPORTERS | (ONCE if is_first else {})
            for label, overrides in exporters.items():
                row = {"backbone": BACKBONES[family], "head": head, "task": task, "exporter": label}
                rows.append(row | _export(checkpoint, overrides, latency_runs=30 if is_first else 0))
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _export(checkpoint: Path, overrides: list[str], *, latency_runs: int) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    from finetune.config import CONF_DIR
    from finetune.errors import ExportError
    from finetune.exporting import export

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose(
            "export", overrides=[f"ckpt={checkpoint}", "overwrite=true", f"latency_runs={latency_runs}", *overrides]
        )
    try:
        metadata = export(cfg).metadata
    except ExportError as error:
        return {"refused": str(error)}
    return {**metadata["parity"], **metadata["speed"], "folded": metadata.get("batchnorm_folded", "")}


def _checkpoint(
    root: Path, config: dict[str, Any], backbone: Any, head: str, task: str, features: dict[str, torch.Tensor]
) -> Path:
    """A run directory with a checkpoint whose head was fitted on the training images."""
    from finetune import build
    from finetune.checkpoint import describe, write_checkpoint
    from finetune.data.image import read_image

    data = _data(root, task)
    table = build.part(data, 0).load()
    table.write_csv(root / "split.csv")
    rows = table.rows("train")
    names = [str(table.path(int(row))) for row in rows]
    if names[0] not in features:
        for name in names:
            image_HWC = backbone.preprocessing.resize_crop(read_image(name))
            image_BCHW = torch.from_numpy(image_HWC.transpose(2, 0, 1).copy())[None]
            with torch.no_grad():
                features[name] = backbone.module(backbone.preprocessing.normalize(image_BCHW))
    network = build.network(backbone, HEADS[head], len(table.classes)).eval()
    _fit(network.head, torch.cat([features[name] for name in names]), table.targets[rows], len(table.classes))
    card = describe(
        task=table.task,
        classes=table.classes,
        preprocessing=backbone.preprocessing,
        config={"seed": 0, "data": data, "backbone": config, "head": HEADS[head]},
        backbone={"name": config["name"], "weights": backbone.weights},
        versions={},
    )
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    path = root / "checkpoints" / "best.ckpt"
    write_checkpoint({"state_dict": state, "finetune": card, "global_step": 0, "epoch": 0}, path)
    return path


def _data(root: Path, task: str) -> dict[str, Any]:
    root.mkdir(parents=True)
    common = {"path": str(IMAGES), "image_size": SIZE_PX, "val_fraction": 0.3}
    if task == "multiclass":
        return {"_target_": "finetune.data.folder.FolderData", **common}
    lines = ["path,label,split"]
    for split, name in (("train", "train"), ("test", "val")):
        for path in sorted((IMAGES / split).glob("*/*.jpg")):
            kind = path.parent.name
            lines.append(f"{path.relative_to(IMAGES).as_posix()},{kind}|{KINDS[kind]},{name}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    file = str(root / "labels.csv")
    return {"_target_": "finetune.data.csv.CsvData", **common, "file": file, "multilabel": True}


@torch.no_grad()
def _fit(head: torch.nn.Module, features_ND: torch.Tensor, targets: Any, num_classes: int) -> None:
    """Ridge regression onto +-4 for the last linear layer of ``head``; layers before it stay random.

    A cosine head has no bias to take up the mean: its directions are the classes' means, orthogonal to the common one.
    """
    linear = [module for module in head.modules() if isinstance(module, torch.nn.Linear)][-1]
    entering: list[torch.Tensor] = []
    handle = linear.register_forward_hook(lambda _module, inputs, _output: entering.append(inputs[0]))
    head(features_ND)
    handle.remove()
    inputs_ND = (entering[0] if entering else torch.nn.functional.normalize(features_ND)).double()
    known = torch.from_numpy(np.asarray(targets))
    wanted_NK = known if known.ndim == 2 else torch.nn.functional.one_hot(known, num_classes)
    centred_ND = inputs_ND - inputs_ND.mean(0)
    if linear.bias is None:
        common_D = torch.nn.functional.normalize(inputs_ND.mean(0), dim=0)
        means_KD = wanted_NK.double().T @ centred_ND
        linear.weight.copy_(means_KD - (means_KD @ common_D)[:, None] * common_D)
        return
    wanted_NK = wanted_NK.double() * 8 - 4
    gram_DD = centred_ND.T @ centred_ND
    gram_DD += 3e-3 * gram_DD.trace() / len(gram_DD) * torch.eye(len(gram_DD), dtype=torch.float64)
    weight_DK = torch.linalg.solve(gram_DD, centred_ND.T @ wanted_NK)
    linear.weight.copy_(weight_DK.T)
    linear.bias.copy_(wanted_NK.mean(0) - inputs_ND.mean(0) @ weight_DK)


def _page(rows: list[dict[str, Any]]) -> str:
    exact = [row for row in rows if row["exporter"] in EXPORTERS or row["exporter"] == "onnx, graph"]
    speed = [row for row in rows if (row["head"], row["task"]) == ("linear", "multiclass") and "refused" not in row]
    lines = [
        "# Export matrix\n",
        f"`make export-matrix` on {platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s), "
        f"PyTorch {torch.__version__}; the sample set at {SIZE_PX} px. Differences are of calibrated probabilities, "
        "over the validation images.\n",
        "## Parity\n",
        "| backbone | head | task | exporter | images | largest difference | equal decisions | model | artefact |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in exact:
        name = f"| {row['backbone']} | {row['head']} | {row['task']} | {row['exporter']} |"
        if "refused" in row:
            lines.append(f"{name} refused: {row['refused'].partition(';')[0].partition(': ')[2]} | | | | |")
            continue
        lines.append(
            f"{name} {row['images']} | {row['max_difference']:.1e} | {row['agreement']:.2%} | "
            f"{row['accuracy_model']:.4f} | {row['accuracy_artefact']:.4f} |"
        )
    lines += [
        "\n## Size and latency of one image, against the eager model\n",
        "| backbone | exporter | MiB | of the model | ms | times as fast | accuracy | BatchNorm folded |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in speed:
        lines.append(
            f"| {row['backbone']} | {row['exporter']} | {row['artefact_mib']:.1f} | "
            f"{row['artefact_mib'] / row['model_mib']:.2f} | {row['artefact_ms']:.2f} | "
            f"{row['model_ms'] / row['artefact_ms']:.1f} | {row['accuracy_artefact']:.4f} "
            f"({row['accuracy_artefact'] - row['accuracy_model']:+.4f}) | {row['folded']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
