"""Linear warm-up, then a constant learning rate: for ablations, and for runs whose end is not known."""

from __future__ import annotations

from finetune.ranges import NotNegative


class Constant:
    """Factor on the learning rate: climbs over ``warmup_epochs``, then stays at 1."""

    def __init__(self, *, warmup_epochs: NotNegative = 0.0) -> None:
        self.warmup_epochs = warmup_epochs

    def __call__(self, progress: float, epochs: int) -> float:
        """Factor after ``progress`` of ``epochs`` (both in epochs; ``progress`` may be fractional)."""
        return min(1.0, progress / self.warmup_epochs) if self.warmup_epochs else 1.0
