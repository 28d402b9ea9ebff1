"""Classify a photograph, a folder or a glob.

    python -m finetune.predict ckpt=RUN/checkpoints/best.ckpt input=./photos
    python -m finetune.predict ckpt=RUN/exports/onnx input="./photos/**/*.jpg" format=jsonl
    python -m finetune.predict backbone=efficientnet_lite0 input=cat.jpg       # ImageNet's own classes, nothing trained

Writes predictions.csv. Files that cannot be read are named and skipped; the exit code is then 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune import cli, interpreter

if TYPE_CHECKING:
    from finetune.predicting import Result


def run(cfg: DictConfig) -> Result:
    """Predict as configured; gives the file that was written and what was left out."""
    from finetune.predicting import predict

    hydra = HydraConfig.get()
    typed = tuple(override.lstrip("+~").partition("=")[0] for override in hydra.overrides.task)
    return predict(cfg, Path(hydra.runtime.output_dir), typed)


main = cli.entry("predict", run)

if __name__ == "__main__":
    interpreter.run(main)
