"""The README.md of an artefact: what the model is, how well it does, how it was checked, and a snippet that runs.

Everything in it comes from metadata.json, so the card cannot say more than what was measured. The header is the YAML
that the Hugging Face hub reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SERVE = Path(__file__).with_name("serve_onnx.py")
_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy", "map", "f1", "loss", "ece")

_SNIPPETS = {
    "onnx": "`serve.py` beside this file needs onnxruntime, numpy and Pillow, and nothing else:\n\n"
    "    python serve.py photos > predictions.csv\n\n```python\n{serve}```",
    "timm": """```python
import timm
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()  # the path of this folder
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
scores = model(transform(Image.open("photo.jpg").convert("RGB")).unsqueeze(0))
print(model.pretrained_cfg["label_names"][scores.argmax()])
```""",
    "safetensors": """```python
from finetune.classifier import Classifier

classifier = Classifier.load(".")  # the path of this folder
print(classifier.predict(["photo.jpg"])[0].label)
```""",
    "torchscript": """```python
from finetune.classifier import Classifier

classifier = Classifier.load(".")  # the path of this folder; or torch.jit.load("model.pt")
print(classifier.predict(["photo.jpg"])[0].label)
```""",
    "torch_export": """```python
import torch

# Opening a .pt2 executes code: load this one where you trust where it came from, and never a foreign one.
model = torch.export.load("model.pt2").module()
images = torch.zeros(1, 3, {height}, {width})  # resized, cropped and normalised as described below
print(model(images).softmax(1))
```""",
}


def model_card(metadata: Mapping[str, Any]) -> str:
    """The text of README.md."""
    classes = metadata["classes"]
    height, width = metadata["preprocessing"]["size"]
    shown = ", ".join(classes[:20]) + (f", ... {len(classes) - 20} more" if len(classes) > 20 else "")
    snippet = _SNIPPETS.get(metadata["exporter"], "").replace("{height}", str(height)).replace("{width}", str(width))
    if "{serve}" in snippet:
        snippet = snippet.replace("{serve}", SERVE.read_text(encoding="utf-8"))
    sections = [
        "---\nlibrary_name: " + ("timm" if metadata["exporter"] == "timm" else "finetune"),
        f"pipeline_tag: image-classification\ntags: [image-classification, {metadata['exporter']}]\n---\n",
        f"# {metadata['backbone']['name']}, {len(classes)} classes\n",
        f"Task: {metadata['task']}. Classes, in the order of the outputs: {shown}.\n",
        "## Use\n",
        snippet + "\n",
        "## Input and output\n",
        _interface(metadata),
        "## Accuracy\n",
        _metrics(metadata["metrics"]),
        "## Checked against the model it was exported from\n",
        _parity(metadata),
    ]
    notes = [f"- {note}" for note in metadata.get("notes", [])]
    if notes:
        sections += ["## Note\n", "\n".join(notes) + "\n"]
    return "\n".join(sections)


def _interface(metadata: Mapping[str, Any]) -> str:
    spec, model_input = metadata["preprocessing"], metadata["input"]
    outputs = ", ".join(f"`{output['name']}` {output['shape']}" for output in metadata["outputs"])
    lines = [f"Input `{model_input['name']}`: {model_input['dtype']}, {model_input['layout']}, {model_input['shape']}."]
    if model_input["dtype"] == "uint8":
        lines.append("Give whole RGB images, upright (EXIF applied); resize, crop and normalisation are in the graph.")
    else:
        height, width = spec["size"]
        how = "to exactly" if spec["crop_mode"] == "squash" else "so that a centre crop fits"
        lines.append(
            f"RGB images, upright, resized ({spec['interpolation']}, antialiased) {how} {height} x {width} over "
            f"crop_pct {spec['crop_pct']:g}, cropped, scaled to [0, 1], minus {spec['mean']}, over {spec['std']}."
        )
    temperature = metadata["temperature"]
    lines.append(f"Outputs: {outputs}. Probabilities are calibrated: logits over a temperature of {temperature:.4g}.")
    if metadata["thresholds"]:
        lines.append(f"A class is present from these probabilities on: {metadata['thresholds']}.")
    return "\n".join(lines) + "\n"


def _metrics(metrics: Mapping[str, Any]) -> str:
    names = [name for name in _SHOWN if any(name in figures for figures in metrics.values())]
    if not names:
        return "Not recorded in the checkpoint.\n"
    rows = [
        f"| {split} | " + " | ".join(_number(figures.get(name)) for name in names) + " |"
        for split, figures in metrics.items()
    ]
    return "\n".join([f"| split | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|", *rows]) + "\n"


def _parity(metadata: Mapping[str, Any]) -> str:
    parity, speed = metadata["parity"], metadata["speed"]
    if parity is None:
        return "Not checked (parity=false).\n"
    rows = [
        ("validation images", str(parity["images"])),
        ("largest difference of a probability", f"{parity['max_difference']:.2g}"),
        ("equal decisions", f"{parity['agreement']:.2%}"),
        ("accuracy of the model", _number(parity["accuracy_model"])),
        ("accuracy of this artefact", _number(parity["accuracy_artefact"])),
        ("size", f"{speed['artefact_mib']:.1f} MiB; the model's weights: {speed['model_mib']:.1f} MiB"),
    ]
    if speed["artefact_ms"] is not None:
        rows.append(
            ("one image on the exporting CPU", f"{speed['artefact_ms']:.1f} ms; the model: {speed['model_ms']:.1f} ms")
        )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
