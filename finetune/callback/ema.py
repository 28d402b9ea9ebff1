"""An exponential moving average of the weights, used for validation and in ``best.ckpt`` (``callback=ema``).

The average follows the weights closely at first and slowly later (decay ``min(decay, (1 + n) / (10 + n))`` after n steps,
as in TensorFlow's ``ExponentialMovingAverage``), so short runs profit too. Costs one copy of the weights.
Source: Polyak and Juditsky 1992; Tarvainen and Valpola 2017.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from finetune.ranges import ShareBelowOne


class EMA(Callback):
    """Averages every floating-point parameter and buffer after each optimizer step.

    Args:
        decay: of the average, in (0, 1); 0.999 looks back over about a thousand steps.
    """

    def __init__(self, *, decay: ShareBelowOne = 0.999) -> None:
        self.decay = decay
        self.steps = 0
        self.averages: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the weights as they are, unless a checkpoint brought averages."""
        weights = _floating(pl_module)
        self.averages = {
            name: self.averages[name].to(value.device) if name in self.averages else value.detach().clone()
            for name, value in weights.items()
        }

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Move the average after an optimizer step."""
        if trainer.global_step == self.steps:
            return
        self.steps = trainer.global_step
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        weights = _floating(pl_module)
        torch._foreach_lerp_([self.averages[name] for name in weights], list(weights.values()), 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the average."""
        self._raw = {name: value.detach().clone() for name, value in _floating(pl_module).items()}
        _copy(self.averages, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the weights themselves."""
        _copy(self._raw, pl_module)
        self._raw = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint continues the weights themselves, also when it is written in mid-validation."""
        checkpoint["state_dict"].update({name: value.clone() for name, value in self._raw.items()})

    def state_dict(self) -> dict[str, Any]:
        """The average and its age."""
        return {"steps": self.steps, "averages": {name: value.cpu() for name, value in self.averages.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.steps = state_dict["steps"]
        self.averages = state_dict["averages"]


def _floating(pl_module: LightningModule) -> dict[str, Tensor]:
    return {
        name: value.detach()
        for name, value in pl_module.state_dict().items()
        if name.startswith("network.") and value.is_floating_point()
    }


@torch.no_grad()
def _copy(source: dict[str, Tensor], pl_module: LightningModule) -> None:
    for name, value in _floating(pl_module).items():
        value.copy_(source[name])
