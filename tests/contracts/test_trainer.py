"""What every trainer YAML promises: Lightning takes it, and hardware that is not there is named, not stumbled over."""

from __future__ import annotations

import hydra
import lightning
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from finetune import build
from finetune.config import CONF_DIR
from finetune.errors import ConfigError
from finetune.hardware import fast_precision


@pytest.fixture
def node(trainer):
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[f"trainer={trainer}"])
    GlobalHydra.instance().clear()
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = fast_precision(cfg.trainer.accelerator)
    return cfg.trainer


def test_lightning_takes_it_or_says_which_hardware_is_missing(node):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    if node.accelerator == "gpu" and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"Trainer: .*gpu"):
            build.part(node, **quiet)
        return
    trainer = build.part(node, **quiet)
    assert isinstance(trainer, lightning.Trainer)
    assert trainer.max_epochs == node.max_epochs
    assert trainer.num_devices == (node.devices if node.devices != -1 else torch.cuda.device_count())


def test_the_length_of_a_run_and_the_clipping_are_the_same_in_all(node):
    assert (node.max_epochs, node.gradient_clip_val, node.accumulate_grad_batches) == (10, 1.0, 1)
