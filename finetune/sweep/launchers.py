"""From ``hydra/launcher=NAME`` to an engine and its options: our own names, and those of Hydra's plugins.

``joblib``, ``submitit_local`` and ``submitit_slurm`` are the configurations of hydra-joblib-launcher and
hydra-submitit-launcher, key for key as their documentation has them. Their code is not used: it runs jobs inside the
worker, where one that is killed takes the others along, and gives up at the first that failed.
"""

from __future__ import annotations

from typing import Any

from finetune.errors import ConfigError

_PLUGINS = {
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": ("joblib", ""),
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": ("submitit", "local"),
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": ("submitit", "slurm"),
}
_COMMON = {
    "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout",
}  # fmt: skip
"""submitit's parameters that every cluster has; the others are named after their cluster."""
_EXECUTOR = {"max_num_timeout"}


def engine_and_options(launcher: dict[str, Any], threads_per_job: int | None) -> tuple[str, dict[str, Any]]:
    """The engine's name and what it reads.

    Raises:
        ConfigError: the launcher is none of those that give every job a process of its own.
    """
    name, cluster = _PLUGINS.get(str(launcher.get("_target_")), (launcher.get("engine"), ""))
    common = {"threads_per_job": threads_per_job}
    if name in ("local", "ray"):
        return name, {**launcher, **common}
    if name == "joblib":
        return name, {"n_jobs": launcher["n_jobs"], **common}
    if name == "submitit":
        given = {key: value for key, value in launcher.items() if value not in (None, {}) and not key.startswith("_")}
        given.pop("submitit_folder", None)  # in the sweep's own directory, which a resumed sweep finds again
        executor = {key: given.pop(key) for key in _EXECUTOR & set(given)}
        parameters = {key if key in _COMMON else f"{cluster}_{key}": value for key, value in given.items()}
        return name, {"cluster": cluster, "executor": executor, "parameters": parameters, **common}
    raise ConfigError(
        "hydra/launcher: expected local, joblib, submitit_local, submitit_slurm or ray; joblib and submitit need "
        "pip install 'finetune[sweep,cluster]'; for Hydra's own way of running jobs use hydra/sweeper=basic"
    )
