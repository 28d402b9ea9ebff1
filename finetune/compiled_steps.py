"""``compile=true``: the network of the training steps through ``torch.compile``.

For long trainings on a GPU. It takes a minute or two for a ResNet-50, again for every phase in which other stages train
and for a last batch of another size, and on a CPU nothing is gained (docs/log.md has the measurement). Validation, the
final evaluation, checkpoints, averages and exports use the network itself, so no name in any file changes. Where there
is no compiler, or compiling fails, the training goes on without.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from finetune.freeze.schedule import FreezeSchedule
from finetune.network import Network

log = logging.getLogger(__name__)


class CompiledSteps:
    """Computes like ``network``, compiled at the first call. No module: it owns no weights and appears in no file."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._run = torch.compile(network.forward, dynamic=False)
        self._failed = False

    def serve(self, network: Network) -> bool:
        """Whether ``network`` is the one that was compiled, no copy that stands in for it, and trains."""
        return network is self._network and network.training and not self._failed

    def __call__(self, images_BCHW: Tensor) -> Tensor | None:
        """Normalised images B C H W to logits B K; None, from then on, where they cannot be compiled, which is said."""
        from torch._dynamo.exc import TorchDynamoException

        try:
            logits_BK: Tensor = self._run(images_BCHW)
        except TorchDynamoException as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            log.warning("compile   failed, goes on without (%s: %s)", type(error).__name__, reason[:200])
            self._failed = True
            return None
        return logits_BK


def announcement(schedule: FreezeSchedule, device_type: str) -> str:
    """What ``compile=true`` costs here, and when it pays."""
    phases = len(schedule.phases)
    times = "once" if phases == 1 else f"once for each of {phases} phases"
    gain = "no faster afterwards on a CPU" if device_type == "cpu" else "pays in trainings of an hour, not of minutes"
    return f"compile   training steps, {times}, a minute or two for a ResNet-50; {gain}"
