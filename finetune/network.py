"""The network that is trained: a backbone that gives pooled features, and a head that gives one logit per class.

Freezing is what segmentation_models.pytorch taught: no gradient, no stale gradient, and an eval mode that ``train()``
cannot undo. A frozen stage therefore computes the same in training as in evaluation, and its buffers do not move.
"""

from __future__ import annotations

from torch import Tensor, nn

from finetune.freeze.schedule import FreezeSchedule


class Network(nn.Module):
    """``head(backbone(images_BCHW))``: normalised images to ``logits_BK``."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._eval_modules: tuple[nn.Module, ...] = ()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Normalised images B C H W to logits B K."""
        logits_BK: Tensor = self.head(self.backbone(images_BCHW))
        return logits_BK

    def freeze(self, schedule: FreezeSchedule, epoch: int) -> None:
        """Bring the network into the state that ``schedule`` prescribes for ``epoch``; calling it again changes nothing.

        Frozen parameters get ``requires_grad=False`` and lose their gradient: an optimizer leaves a parameter without
        one alone (weight decay included), but moves one whose stale gradient was left behind.
        """
        trainable = schedule.trainable(epoch)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trainable)
            if name not in trainable:
                parameter.grad = None
        frozen = schedule.frozen_modules(epoch)
        statistics_frozen = schedule.phase(epoch).batch_norm == "frozen"
        modules = [
            module
            for name, module in self.named_modules()
            if name in frozen or (statistics_frozen and isinstance(module, nn.modules.batchnorm._BatchNorm))
        ]
        if all(name in frozen for stage in schedule.stages[:-1] for name in stage.modules):
            modules.append(self.backbone)  # its own flag switches functional dropout and drop path
        self._eval_modules = tuple(modules)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:  # noqa: FBT001, FBT002 - torch's signature
        """As torch's, but frozen modules stay in eval mode."""
        super().train(mode)
        for module in self._eval_modules:
            module.training = False  # not .train(False): a container's children may train
        return self
