"""Lightning's trainer and the callbacks of a run, in the order in which they must act."""

from __future__ import annotations

import logging
import shutil
import warnings
from typing import Literal

import lightning
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from finetune import build
from finetune.callback.auto_batch import AutoBatch
from finetune.callback.bad_files import BadFiles
from finetune.callback.checkpointing import Checkpointing, SealedCheckpointIO
from finetune.callback.ema import EMA
from finetune.callback.finite import FiniteNumbers
from finetune.callback.interruption import Interruption
from finetune.callback.progress import progress
from finetune.callback.tracking import Tracking
from finetune.data.module import ImageData
from finetune.errors import TrainingError
from finetune.hardware import fast_precision
from finetune.network import Network
from finetune.run_directory import RunDirectory

_EXPECTED_WARNINGS = (
    ".*dataloader is not resumable.*",  # it is: the loader asks the trainer where it stands instead of keeping a state
    ".*does not have many workers.*",
    ".*sync_dist=True.*",  # torchmetrics has summed over the processes
    ".*in eval mode at the start of training.*",  # frozen stages are
    ".*Grad strides do not match bucket view.*",  # a batch of one image: its convolution's gradient is not channels-last
    ".*smaller than the logging interval.*",  # only epoch figures are logged
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 with torch 2.15
)


def precision_of(cfg: DictConfig) -> str:
    """The precision as given, or what ``auto`` means on this machine."""
    return fast_precision(cfg.trainer.accelerator) if cfg.trainer.precision == "auto" else str(cfg.trainer.precision)


def make_callbacks(cfg: DictConfig, run: RunDirectory, data: ImageData) -> tuple[list[Callback], Interruption]:
    """The user's callbacks and ours, in the order in which they must act at the end of a step."""
    mode: Literal["min", "max"] = "min" if cfg.monitor.endswith(("loss", "ece")) else "max"
    chosen: list[Callback] = []
    for node in cfg.callback.values():
        takes_monitor = str(node._target_).endswith("EarlyStopping")
        chosen.append(build.part(node, cfg.monitor, mode) if takes_monitor else build.part(node))
    average = next((callback for callback in chosen if isinstance(callback, EMA)), None)
    checkpointing = Checkpointing(
        run, cfg.monitor, mode, cfg.checkpoint_every_n_steps, cfg.checkpoint_min_interval_s, average
    )
    interruption = Interruption(checkpointing)
    finite = FiniteNumbers(data.table, cfg.max_skipped_steps)
    tracking = Tracking(every_n_steps=cfg.log_every_n_steps)
    bad_files = BadFiles(data.table, data.options.max_bad_fraction)
    auto = [AutoBatch(data)] if data.options.batch_size == "auto" else []
    ours: list[Callback] = [*auto, tracking, *progress(cfg.monitor), checkpointing, interruption]
    return [bad_files, finite, *chosen, *ours], interruption


def make_trainer(
    cfg: DictConfig, run: RunDirectory, callbacks: list[Callback], loggers: list[Logger]
) -> lightning.Trainer:
    """Lightning's Trainer, with what must not be configured set here."""
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    node = cfg.trainer.copy()
    node.precision = precision_of(cfg)
    trainer = build.part(
        node,
        callbacks=callbacks,
        logger=loggers,
        plugins=[SealedCheckpointIO()],
        default_root_dir=str(run.root),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        num_sanity_val_steps=0,
        log_every_n_steps=1_000_000,  # epoch figures only
        use_distributed_sampler=False,
    )
    assert isinstance(trainer, lightning.Trainer)
    return trainer


def check_disk(run: RunDirectory, network: Network) -> None:
    """Raise ``TrainingError`` at the start when the checkpoints cannot fit on the disk.

    ``last``, ``previous`` and the one being written hold weights, two moments (AdamW) and perhaps an average; ``best``,
    ``probe`` and ``tuned`` weights alone: fifteen times the weights in all.
    """
    needed = (3 * 4 + 3) * sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    free = shutil.disk_usage(run.root).free
    if free < needed:
        raise TrainingError(
            f"{run.root} has {free / 2**20:.0f} MiB free and the checkpoints of this network need up to "
            f"{needed / 2**20:.0f} MiB; free some space, or place the run elsewhere with hydra.run.dir=DIR"
        )
