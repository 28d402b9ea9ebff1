"""Tells a search how a trial does after each epoch, and ends the trial when the search has seen enough.

Added to the jobs of ``sweep=optuna`` by the sweep itself, never by hand. A pruned trial ends like any other run: best
checkpoint, final figures, ``result.json``. Where the study lies comes through the environment, because its URL may hold
a password. Costs one small query per epoch.
"""

from __future__ import annotations

import logging
import math
import os
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from finetune.errors import ConfigError

log = logging.getLogger(__name__)
PRUNED_ATTRIBUTE = "pruned_after_epoch"
_VARIABLES = ("FINETUNE_OPTUNA_STORAGE", "FINETUNE_OPTUNA_STUDY", "FINETUNE_OPTUNA_TRIAL")


class Pruning(Callback):
    """Reports ``monitor`` and ends the training when the pruner says so; its other keys are the sweep's."""

    def __init__(
        self,
        *,
        monitor: str = "val/balanced_accuracy",
        pruner: str = "quartile",
        warmup_trials: int = 5,
        warmup_epochs: int = 4,
    ) -> None:
        absent = [name for name in _VARIABLES if not os.environ.get(name)]
        if absent:
            raise ConfigError(f"callback=pruning belongs to the trials of sweep=optuna; {', '.join(absent)} is not set")
        self.monitor = monitor
        self._rule = (pruner, warmup_trials, warmup_epochs)
        self._trial: Any = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch and ask."""
        if trainer.sanity_checking:
            return
        stop = self._judge(trainer) if trainer.is_global_zero else False
        trainer.should_stop |= trainer.strategy.broadcast(stop)

    def _judge(self, trainer: Trainer) -> bool:
        """Whether to end the trial after this epoch."""
        value, epoch, trial = float(trainer.callback_metrics[self.monitor]), trainer.current_epoch, self._opened()
        reported = trial.study._storage.get_trial(trial._trial_id).intermediate_values
        if math.isfinite(value) and epoch not in reported:  # a continued trial may repeat an epoch
            trial.report(value, epoch)
        if epoch + 1 == trainer.max_epochs or not trial.should_prune():
            return False
        trial.set_user_attr(PRUNED_ATTRIBUTE, epoch + 1)
        log.info("pruned after epoch %d: %s %.4f is not promising", epoch + 1, self.monitor, value)
        return True

    def _opened(self) -> Any:
        if self._trial is None:
            import optuna

            from finetune.sweep.pruner import build_pruner

            storage, study_name, trial_id = (os.environ[name] for name in _VARIABLES)
            study = optuna.load_study(study_name=study_name, storage=storage, pruner=build_pruner(*self._rule))
            self._trial = optuna.trial.Trial(study, int(trial_id))
        return self._trial
