"""ImageClassifier: the LightningModule. It receives built parts and joins them; the mathematics lives in the parts.

The learning rate, the freeze phase and the model's noise are set at the start of every step from (epoch, batch), so a
resumed run needs nothing but the position to go on exactly as the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor, distributed, nn
from torchmetrics import MeanMetric, Metric

from finetune.cache.features import FeatureReuse
from finetune.compiled_steps import CompiledSteps
from finetune.depthwise import Float32Depthwise
from finetune.freeze.schedule import FreezeSchedule
from finetune.network import Network
from finetune.optimizer.groups import Group, parameter_groups
from finetune.preprocessing import Preprocessing
from finetune.random_keys import derive_seed
from finetune.types import Batch


class OptimizerPart(Protocol):
    """What ``optimizer=NAME`` builds."""

    lr: float
    weight_decay: float
    layer_decay: float

    def __call__(self, groups: list[Group]) -> torch.optim.Optimizer: ...


Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ImageClassifier(lightning.LightningModule):
    """Trains ``network`` by ``schedule``.

    Args:
        network: backbone and head.
        schedule: which stages train in which epoch.
        optimizer: builds the optimizer over named groups.
        scheduler: factor on the learning rate from (progress, epochs), both in epochs.
        loss: ``(logits_BK, targets)`` to a scalar; targets are int64 B or float B K.
        mix: mixup or cutmix over ``(images_BCHW, targets)``, or None.
        preprocessing: normalisation of uint8 images.
        metrics: sees ``(logits_BK, targets)`` of a whole validation and computes figures by name.
        card: the plain ``finetune`` entry of the checkpoint.
        seed: of the model's noise.
    """

    def __init__(
        self,
        network: Network,
        schedule: FreezeSchedule,
        optimizer: OptimizerPart,
        scheduler: Callable[[float, int], float],
        loss: nn.Module,
        mix: Mix | None,
        preprocessing: Preprocessing,
        metrics: Metric,
        card: dict[str, Any],
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.optimizer_part = optimizer
        self.scheduler = scheduler
        self.loss = loss
        self.mix = mix
        self.preprocessing = preprocessing
        self.val_metrics = metrics
        self.val_loss = MeanMetric()
        self.train_loss = MeanMetric()
        self.card = card
        self.seed = seed
        self.anchor = _anchor(network) if schedule.l2_sp else {}
        self.reuse: FeatureReuse | None = None
        self.steps: CompiledSteps | None = None
        self.part_weight: Callable[[int], float] | None = None  # what a batch counts in its step, by its number

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """uint8 images B C H W of the network's size to logits B K."""
        return self._logits_of(self.preprocessing.normalize(images_BCHW))

    def from_stored(self, activations: Tensor, epoch: int) -> Tensor:
        """Stored activations of ``epoch`` (B first) to logits B K; the head computes in float32."""
        assert self.reuse is not None
        rest = self.reuse.rest(epoch)
        if rest is not None:
            rest.training = self.network.backbone.training
            with Float32Depthwise():
                activations = rest(activations.contiguous(memory_format=_format(activations)))
        with torch.autocast(activations.device.type, enabled=False):
            logits_BK: Tensor = self.network.head(activations.float())
        return logits_BK

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer over every parameter, frozen or not, in named groups that never change."""
        part = self.optimizer_part
        groups = parameter_groups(self.network, self.schedule.stages, part.weight_decay, part.layer_decay)
        return part(groups)

    def on_train_start(self) -> None:
        """Enter the phase after a resume in mid-epoch too, when no epoch start is announced."""
        self.network.freeze(self.schedule, self.current_epoch)

    def on_train_epoch_start(self) -> None:
        """Enter the phase of this epoch; its mean loss begins anew (in mid-epoch, a resumed run has it from the file)."""
        self.train_loss.reset()
        self.network.freeze(self.schedule, self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the step's learning rates and the seed of its noise; both are functions of (epoch, batch).

        With ``trainer.max_time`` the rate is that of whichever is nearer to its end, the epochs or the time.
        """
        epochs, batches = self.trainer.max_epochs, self.trainer.num_training_batches
        assert epochs is not None
        first = batch_idx - batch_idx % self.trainer.accumulate_grad_batches
        middle = first + min(self.trainer.accumulate_grad_batches, batches - first) / 2
        progress = self.current_epoch + middle / batches  # the middle of the step, so batches of one step share a rate
        nearer = max(progress, self._share_of_time() * epochs)
        factor = self.scheduler(nearer, epochs) * self.schedule.lr_factor(progress)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups:
            group["lr"] = self.optimizer_part.lr * group["lr_scale"] * factor
        seed = derive_seed(self.seed, "noise", self.current_epoch, batch_idx, self.global_rank)
        if self.device.type == "cpu":  # torch's own function formats a traceback for each device that is not in use
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Loss of one batch; when not one of its images could be read, None (no step), or 0 beside other processes."""
        if len(batch.indices) == 0:
            return None if self.trainer.world_size == 1 else self._nothing()
        loss = self.batch_loss(batch)
        finite = torch.isfinite(loss.detach())  # a step that is not finite ends the run, or is left out of the mean too
        self.train_loss.update(torch.where(finite, loss.detach(), 0.0), finite * len(batch.indices))
        if self.part_weight is not None:
            loss = loss * self.part_weight(batch_idx)
        return loss + self._pull() if self.anchor else loss

    def batch_loss(self, batch: Batch) -> Tensor:
        """Mean loss over a batch, mixed where the run mixes; without the pull, and counted nowhere."""
        targets = batch.targets
        if self.mix is not None and not batch.is_features:
            images_BCHW, targets = self.mix(self.preprocessing.normalize(batch.inputs), targets)
            logits_BK = self._logits_of(images_BCHW)
        else:
            logits_BK = self._logits(batch)
        loss: Tensor = self.loss(logits_BK.float(), targets)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm by torch; Lightning's own way refuses fused optimizers under mixed precision."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(
                [value for group in optimizer.param_groups for value in group["params"]], gradient_clip_val
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the metrics of one batch; entries that only even out processes are left out."""
        if len(batch.indices) == 0:
            return
        real = batch.indices >= 0
        logits_BK = self._logits(batch).float()[real]
        targets = batch.targets[real]
        self.val_loss.update(self.loss(logits_BK, targets) if len(targets) else 0.0, len(targets))
        self.val_metrics.update(logits_BK, targets)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics under ``val/``, and its mean training loss, every image counted once.

        Both before the epoch's checkpoint is written, so that no figure is lost to a process killed right after it.
        """
        self.log("train/loss", self.train_loss.compute(), prog_bar=True)
        self.log("val/loss", self.val_loss.compute())
        self.log_dict({f"val/{name}": value for name, value in self.val_metrics.compute().items()})
        self.val_loss.reset()
        self.val_metrics.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what describes the model, and the running mean of the training loss: each process's own (sum, weight)."""
        checkpoint["finetune"] = self.card
        own = torch.stack([self.train_loss.mean_value, self.train_loss.weight])
        checkpoint["train_loss"] = _of_every_process(own).cpu()
        if self.anchor:
            checkpoint["anchor"] = {name: value.cpu() for name, value in self.anchor.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse of ``on_save_checkpoint``; another number of processes than before shares the mean out anew."""
        self.card = checkpoint["finetune"]
        found = checkpoint["train_loss"]
        if len(found) != self.trainer.world_size:
            found = (found.sum(0) / self.trainer.world_size).expand(self.trainer.world_size, 2)
        own = found[self.trainer.global_rank]
        self.train_loss.mean_value.copy_(own[0])
        self.train_loss.weight.copy_(own[1])
        self.train_loss._update_count = 1
        if self.anchor:
            self.anchor = checkpoint["anchor"]

    def _share_of_time(self) -> float:
        """How much of ``trainer.max_time`` has gone, from 0 to 1, as the first process sees it; 0 without a limit."""
        timer = next((callback for callback in self.trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]
        remaining_s = None if timer is None else timer.time_remaining()
        if timer is None or remaining_s is None:
            return 0.0
        elapsed_s = timer.time_elapsed()
        share: float = self.trainer.strategy.broadcast(elapsed_s / max(elapsed_s + remaining_s, 1e-9))
        return min(1.0, share)

    def _logits_of(self, normalised_BCHW: Tensor) -> Tensor:
        if self.steps is not None and self.steps.serve(self.network):
            compiled_BK = self.steps(normalised_BCHW)
            if compiled_BK is not None:
                return compiled_BK
        with Float32Depthwise():
            logits_BK: Tensor = self.network(normalised_BCHW)
        return logits_BK

    def _logits(self, batch: Batch) -> Tensor:
        return self.from_stored(batch.inputs, self.current_epoch) if batch.is_features else self(batch.inputs)

    def _pull(self) -> Tensor:
        """L2-SP: half the squared distance of the backbone's trained weights from where they started."""
        terms = [
            (parameter - self.anchor[name].to(parameter.device)).square().sum()
            for name, parameter in self.network.backbone.named_parameters()
            if parameter.requires_grad
        ]
        zero = torch.zeros((), device=self.device)
        return 0.5 * self.schedule.l2_sp * torch.stack(terms).sum() if terms else zero

    def _nothing(self) -> Tensor:
        """A loss of 0 that every trained parameter takes part in, as the other processes wait for its gradient."""
        self.train_loss.update(0.0, 0)
        return torch.stack([0.0 * parameter.sum() for parameter in self.parameters() if parameter.requires_grad]).sum()


def _of_every_process(own: Tensor) -> Tensor:
    """``own`` of each process, stacked by rank; of this one alone where there are no others."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return own[None]
    found = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, own)
    return torch.stack(found)


def _format(activations: Tensor) -> torch.memory_format:
    return torch.channels_last if activations.ndim == 4 else torch.contiguous_format


def _anchor(network: Network) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.backbone.named_parameters()}
