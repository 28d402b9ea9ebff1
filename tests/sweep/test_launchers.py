"""``hydra/launcher=NAME``: the plugins' own configurations lead to our engines, key for key."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from finetune.config import CONF_DIR
from finetune.errors import ConfigError
from finetune.sweep.launchers import engine_and_options


def _launcher(*overrides: str) -> dict[str, Any]:
    typed = ["data.path=x", "hydra.job.name=train", *overrides]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", typed, return_hydra_config=True)
    return OmegaConf.to_container(cfg.hydra.launcher, resolve=False)  # type: ignore[return-value]


def test_this_machine_is_the_default() -> None:
    assert engine_and_options(_launcher(), 2) == (
        "local",
        {"engine": "local", "n_jobs": 1, "gpus_per_job": None, "threads_per_job": 2},
    )


def test_joblibs_plugin_configuration_is_understood() -> None:
    found = engine_and_options(_launcher("hydra/launcher=joblib", "hydra.launcher.n_jobs=3"), None)
    assert found == ("joblib", {"n_jobs": 3, "threads_per_job": None})


def test_submitits_plugin_configuration_is_understood() -> None:
    typed = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.mem_gb=8")
    engine, options = engine_and_options(_launcher(*typed, "hydra.launcher.max_num_timeout=2"), None)
    assert (engine, options["cluster"], options["executor"]) == ("submitit", "slurm", {"max_num_timeout": 2})
    parameters = options["parameters"]
    assert (parameters["slurm_partition"], parameters["mem_gb"], parameters["nodes"]) == ("gpu", 8, 1)
    assert parameters["slurm_array_parallelism"] == 256
    assert not {"slurm_qos", "slurm_mem_gb", "submitit_folder"} & set(parameters)


def test_a_launcher_that_shares_one_process_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected local, joblib, submitit_local, submitit_slurm or ray"):
        engine_and_options(_launcher("hydra/launcher=basic"), None)
