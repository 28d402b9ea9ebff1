"""Fine-tune a classifier on a folder of images.

    python -m finetune.train data.path=./mydata
    python -m finetune.train data.path=./mydata backbone=efficientnet_lite0 trainer.max_epochs=20
    python -m finetune.train data.path=./mydata backbone.weights=none                      # from scratch
    python -m finetune.train data.path=./mydata hydra.run.dir=runs/mine resume=auto        # go on where it stopped

Writes a run directory (README.md explains each file). ``--help`` lists keys and groups.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune import cli

if TYPE_CHECKING:
    from finetune.training import Result


def run(cfg: DictConfig) -> Result:
    """Train as configured; gives the content of ``result.json``."""
    from finetune.run_directory import RunDirectory
    from finetune.training import train

    hydra_run = HydraConfig.get().runtime
    return train(cfg, RunDirectory(Path(hydra_run.output_dir)), hydra_run.choices)


main = cli.entry("train", run)

if __name__ == "__main__":
    main()
