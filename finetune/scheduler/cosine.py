"""Linear warm-up, then half a cosine down to ``final_factor`` (Loshchilov and Hutter 2017): the default.

A pure function of the step, so there is no scheduler state to save, restore or get wrong.
"""

from __future__ import annotations

import math

from finetune.ranges import NotNegative, Share


class Cosine:
    """Factor on the learning rate; the warm-up takes ``warmup_epochs``, at most a third of the run."""

    def __init__(self, *, warmup_epochs: NotNegative = 1.0, final_factor: Share = 0.01) -> None:
        self.warmup_epochs = warmup_epochs
        self.final_factor = final_factor

    def __call__(self, progress: float, epochs: int) -> float:
        """Factor after ``progress`` of ``epochs`` (both in epochs; ``progress`` may be fractional)."""
        warmup = min(self.warmup_epochs, epochs / 3)
        if progress < warmup:
            return progress / warmup
        share = (progress - warmup) / (epochs - warmup)
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
