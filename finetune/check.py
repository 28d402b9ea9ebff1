"""Examine a data set before anything is trained: every file is read once, on all cores.

    python -m finetune.check data.path=./mydata
    python -m finetune.check data.path=./mydata 'data.split_by="regex:^([^_]+)_"'       # what precedes _ is kept together
    python -m finetune.check data=csv data.file=labels.csv data.path=./images

Writes data_report.json and data_report.html. Exit code 0 when training would start, 1 when it would refuse, 2 when the
command is wrong. The verdict on a file is remembered; a second check reads what has changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune import cli, interpreter

if TYPE_CHECKING:
    from finetune.data.report import DataReport


def run(cfg: DictConfig) -> DataReport:
    """Examine as configured; gives what was found."""
    from finetune.checking import check

    return check(cfg, Path(HydraConfig.get().runtime.output_dir))


main = cli.entry("check", run)

if __name__ == "__main__":
    interpreter.run(main)
