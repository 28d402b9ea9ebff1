"""``refit=true``: once val has chosen, train once more on train and val together, with exactly what was found.

The same configuration (recipe, learning rate, prior of the loss counted anew), the same strength of the probe, the same
coefficient between probe and fine-tuned weights, and the same epochs: the schedule of the first run, ended after the epoch
that val found best. Measured on test: ten digits a class .834 to .868 and .838 to .840, clip art .761 to .727 and .705 to
.739, the loss lower in all four (docs/log.md). It costs a second training.

Nothing is measured on val again: these weights have seen it. So all val figures, the temperature and the thresholds are
the first run's, whose weights stay in ``before_refit.ckpt``; the test figures are those of the refitted weights, and say
what came of it. Of the refit nothing is written until it is done. A run that is interrupted in it redoes it with
``resume=auto``, from the first run's ends: ``choosing.put_back`` sees to it that those are never refitted weights.

Source: Hastie, Tibshirani and Friedman 2009, 7.10: parameters that were chosen on held-out data are fitted to all of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import lightning
import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, open_dict

from finetune import build
from finetune.assembling import Parts, make_model
from finetune.callback.auto_batch import AutoBatch
from finetune.callback.bad_files import BadFiles
from finetune.callback.ema import EMA
from finetune.callback.finite import FiniteNumbers
from finetune.callback.interruption import Interruption
from finetune.checkpoint import PREFIX, read_payload
from finetune.data.module import ImageData
from finetune.data.table import SPLITS, Table
from finetune.errors import ConfigError
from finetune.finish import Refitted
from finetune.interpolation import Weights, place
from finetune.model import ImageClassifier
from finetune.run_directory import RunDirectory
from finetune.solved_head import solve_head
from finetune.trainer import make_trainer

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What the first run found: where between probe (0) and fine-tuned weights (1), after how many epochs.

    ``strength`` is that of the solved head; None where there is none.
    """

    coefficient: float
    epochs: int
    strength: float | None


class _Epochs(Callback):
    """Ends the fit after so many epochs of its schedule; a signal leaves at once, as there is nothing to save."""

    def __init__(self, epochs: int, interruption: Interruption) -> None:
        self.epochs = epochs
        self.interruption = interruption

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interruption.take_signals()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs
        log.info("refit     epoch %d/%d", trainer.current_epoch + 1, self.epochs)


def check(cfg: DictConfig, world_size: int) -> None:
    """Raise ``ConfigError`` for what a refit cannot repeat."""
    if cfg.refit and world_size > 1:
        raise ConfigError(f"refit=true trains in one process, and this run has {world_size}; say trainer.devices=1")
    if cfg.refit and cfg.trainer.get("max_time") is not None:
        raise ConfigError(
            f"refit=true repeats the epochs that were found, however long they take, and trainer.max_time="
            f"{cfg.trainer.max_time} ends them by the clock; leave one out"
        )


def refit(parts: Parts, run: RunDirectory, chosen: Mapping[str, Any]) -> Refitted:
    """What ``chosen`` says (``epoch`` from 0 or None, ``coefficient``), trained on train and val together.

    Nothing of ``parts`` is changed, and nothing is written in ``run``.
    """
    started = time.monotonic()
    strength = read_payload(run.probe)["finetune"].get("strength") if run.probe.exists() else None
    plan = Plan(chosen["coefficient"], 0 if chosen["epoch"] is None else chosen["epoch"] + 1, strength)
    table = together(parts.data.table)
    log.info(
        "refit     on train and val together, %d images: coefficient %g, %d epochs",
        len(table.rows("train")), plan.coefficient, plan.epochs,
    )  # fmt: skip
    lightning.seed_everything(parts.cfg.seed, verbose=False)
    model, data = make_model(parts.cfg, table, parts.data.options, parts.model.card["config"])
    probe: Weights | None = None
    if model.schedule.solve_head:
        solve_head(model, data, parts.cfg.seed, parts.cfg.monitor, plan.strength)
        probe = _copy(model.network.state_dict())
    if plan.epochs > 0:
        averages = _fit(parts, model, data, plan.epochs, run)
        tuned = _copy(model.network.state_dict()) | averages
        images = data.training_images(model.device)
        place(model.network, tuned if probe is None else probe, tuned, plan.coefficient, images)
    count = len(table.rows("train"))
    sentence = (
        f"Then trained once more on train and val together ({count:,} images): the test figures are those of the new "
        "weights, the val figures those of before_refit.ckpt."
    )
    record = {"images": count, **plan._asdict(), "before": str(run.before_refit.relative_to(run.root))}
    return Refitted(model, data, record, sentence, time.monotonic() - started)


def together(table: Table) -> Table:
    """``table`` with its validation images among those to train on."""
    train, val = SPLITS.index("train"), SPLITS.index("val")
    return table.replace(split=np.where(table.split == val, np.int8(train), table.split))


def _fit(parts: Parts, model: ImageClassifier, data: ImageData, epochs: int, run: RunDirectory) -> Weights:
    """Train ``model``; gives the averaged weights, where the run averages."""
    cfg = parts.cfg.copy()
    with open_dict(cfg):
        cfg.trainer.limit_val_batches = 0
    average = [build.part(node) for node in cfg.callback.values() if str(node._target_).endswith(".EMA")]
    watching = [BadFiles(data.table, data.options.max_bad_fraction), FiniteNumbers(data.table, cfg.max_skipped_steps)]
    auto = [AutoBatch(data)] if data.options.batch_size == "auto" else []
    callbacks = [*watching, *average, *auto, _Epochs(epochs, parts.interruption)]
    trainer = make_trainer(cfg, run, callbacks, [])
    try:
        trainer.fit(model, datamodule=data)
    finally:
        if trainer.train_dataloader is not None:
            trainer.train_dataloader.close()
    averages = next((callback.averages for callback in average if isinstance(callback, EMA)), {})
    return _copy({name.removeprefix(PREFIX): value for name, value in averages.items()})


def _copy(state: Weights) -> Weights:
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
