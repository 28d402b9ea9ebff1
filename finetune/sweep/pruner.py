"""The rule by which ``sweep=optuna`` ends a trial early; the sweep and each trial's own process build the same one."""

from __future__ import annotations

import importlib
from typing import Any

from finetune.errors import ConfigError


def optuna() -> Any:
    """The library, or an error that names the extra."""
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise ConfigError("sweep=optuna needs a package: pip install 'finetune[sweep]'") from error


def build_pruner(name: str, warmup_trials: int, warmup_epochs: int) -> Any:
    """``quartile``, ``median``, ``hyperband`` (Li et al., 2018, arXiv:1603.06560) or ``none``.

    No trial is pruned before ``warmup_epochs``; the first two rules also let the first ``warmup_trials`` end. Both compare
    with trials that ran to their end, so what survives raises the bar: the median soon lets nothing pass.
    """
    pruners = optuna().pruners
    if name == "quartile":
        return pruners.PercentilePruner(75.0, n_startup_trials=warmup_trials, n_warmup_steps=warmup_epochs)
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=warmup_trials, n_warmup_steps=warmup_epochs)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, warmup_epochs))
    if name == "none":
        return pruners.NopPruner()
    raise ConfigError(f"sweep.pruner={name}; expected one of quartile, median, hyperband, none")
