"""Classify images with an exported model.onnx: python serve.py FILE_OR_FOLDER > predictions.csv

Needs onnxruntime, numpy and Pillow, nothing else. Everything about the model is inside of model.onnx.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
session = onnxruntime.InferenceSession(str(Path(__file__).parent / "model.onnx"), providers=["CPUExecutionProvider"])
model = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
spec, classes, inputs = model["preprocessing"], model["classes"], session.get_inputs()[0]


def decode(path: Path) -> Image.Image:
    """What a person sees: upright, transparency on the model's background, RGB uint8."""
    image: Image.Image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*spec["background"], 255)), image)
    return image.convert("RGB")


def normalised(image: Image.Image) -> np.ndarray:
    """Resize, centre crop and normalise, for a model.onnx that does not do it itself."""
    (height, width), scale = spec["size"], [int(side / spec["crop_pct"]) for side in spec["size"]]
    if spec["crop_mode"] == "squash":
        size = scale[1], scale[0]
    elif scale[0] == scale[1]:
        size = int(scale[0] * image.width / min(image.size)), int(scale[0] * image.height / min(image.size))
    else:
        ratio = min(image.height / scale[0], image.width / scale[1])
        size = round(image.width / ratio), round(image.height / ratio)
    image = image.resize(size, Image.Resampling[spec["interpolation"].upper()])
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    return ((pixels - np.float32(spec["mean"])) / np.float32(spec["std"])).transpose(2, 0, 1)


source = Path(sys.argv[1])
rows = csv.writer(sys.stdout, lineterminator="\n")
rows.writerow(["path", "label", "prediction", "confidence", *[f"prob_{name}" for name in classes]])
for path in sorted(file for file in [source, *source.rglob("*")] if file.suffix.lower() in SUFFIXES):
    image = decode(path)
    array = np.asarray(image) if inputs.type == "tensor(uint8)" else normalised(image)
    p = session.run(["probabilities"], {inputs.name: array[None]})[0][0]
    yes = p >= np.array(model["thresholds"] or 0.5) if model["task"] == "multilabel" else p == p.max()
    chosen = "|".join(name for name, decided in zip(classes, yes) if decided)
    sure = np.where(yes, p, 1 - p).min() if model["task"] == "multilabel" else p.max()
    name = path.name if path == source else path.relative_to(source).as_posix()
    rows.writerow([name, "", chosen, *[f"{number:.6g}" for number in (sure, *p)]])
