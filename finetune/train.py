"""Fine-tune a classifier on a folder of images.

    python -m finetune.train data.path=./mydata
    python -m finetune.train data.path=./mydata backbone=efficientnet_lite0 trainer.max_epochs=20
    python -m finetune.train data.path=./mydata backbone.weights=none                      # from scratch
    python -m finetune.train data.path=./mydata hydra.run.dir=runs/mine resume=auto        # go on where it stopped

A run is made again by its own configuration: ``--config-dir RUN --config-name config``, as it stands.

Writes a run directory (README.md explains each file). ``--help`` lists keys and groups.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune import cli, interpreter

if TYPE_CHECKING:
    from finetune.training import Result


def run(cfg: DictConfig) -> Result:
    """Train as configured; gives the content of ``result.json``."""
    from finetune.following import given_keys
    from finetune.processes import age_s
    from finetune.run_directory import RunDirectory
    from finetune.training import train

    hydra = HydraConfig.get()
    experiments = [
        Path(source.path) / "experiment" / f"{hydra.runtime.choices['experiment']}.yaml"
        for source in hydra.runtime.config_sources
        if source.schema == "file" and hydra.runtime.choices.get("experiment")
    ]
    given = given_keys(hydra.overrides.task, [file for file in experiments if file.is_file()])
    choices = {
        "freeze": "as in the file",
        "head": "as in the file",
        **hydra.runtime.choices,
    }  # config.yaml has no groups
    return train(cfg, RunDirectory(Path(hydra.runtime.output_dir)), choices, given, age_s())


main = cli.entry("train", run)

if __name__ == "__main__":
    interpreter.run(main)
