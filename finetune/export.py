"""Turn a checkpoint into a deployable artefact, and prove that it behaves as the model did.

    python -m finetune.export ckpt=RUN/checkpoints/best.ckpt exporter=onnx
    python -m finetune.export ckpt=RUN/checkpoints/best.ckpt exporter=onnx exporter.preprocess=graph    # raw images in
    python -m finetune.export ckpt=RUN/checkpoints/best.ckpt exporter=onnx exporter.precision=int8      # small and fast
    python -m finetune.export -m ckpt=RUN/checkpoints/best.ckpt exporter=onnx,timm,safetensors          # several

Writes one self-describing directory: ``model.*``, ``metadata.json`` and a model card. ``--help`` lists keys and groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from finetune import cli, interpreter

if TYPE_CHECKING:
    from finetune.exporting import Artefact


def run(cfg: DictConfig) -> Artefact:
    """Export as configured; gives the directory and what its metadata.json says."""
    from finetune.exporting import export

    return export(cfg)


main = cli.entry("export", run)

if __name__ == "__main__":
    interpreter.run(main)
