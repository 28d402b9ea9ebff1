"""Measure a model on a labelled split, and show where it fails.

    python -m finetune.evaluate ckpt=RUN/checkpoints/best.ckpt data.path=./mydata
    python -m finetune.evaluate ckpt=RUN/exports/onnx data.path=./mydata data.split=val
    python -m finetune.evaluate ckpt=A.ckpt compare=B.ckpt data.path=./mydata tta=flip

Writes result.json, predictions.csv and report.html. The same images as in training: where the folder has no val/ and
test/, the split is drawn (or replayed from the run's split.csv) exactly as the checkpoint's run drew it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune import cli, interpreter

if TYPE_CHECKING:
    from finetune.evaluating import Result


def run(cfg: DictConfig) -> Result:
    """Evaluate as configured; gives the content of ``result.json``."""
    from finetune.evaluating import evaluate

    hydra = HydraConfig.get()
    typed = tuple(override.lstrip("+~").partition("=")[0] for override in hydra.overrides.task)
    return evaluate(cfg, Path(hydra.runtime.output_dir), typed)


main = cli.entry("evaluate", run)

if __name__ == "__main__":
    interpreter.run(main)
