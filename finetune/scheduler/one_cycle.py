"""The one-cycle policy (Smith and Topin 2018), as torch's ``OneCycleLR`` draws it: cosine up, cosine down.

A pure function of the step; the momentum is not cycled. For training from scratch in few epochs.
"""

from __future__ import annotations

import math

from finetune.ranges import Positive, PositiveShare


class OneCycle:
    """Factor on the learning rate: from ``1 / initial_divisor`` up to 1 at ``peak`` of the run, then down."""

    def __init__(
        self, *, peak: PositiveShare = 0.3, initial_divisor: Positive = 25.0, final_divisor: Positive = 10_000.0
    ) -> None:
        self.peak = peak
        self.initial_divisor = initial_divisor
        self.final_divisor = final_divisor

    def __call__(self, progress: float, epochs: int) -> float:
        """Factor after ``progress`` of ``epochs`` (both in epochs; ``progress`` may be fractional)."""
        start = 1 / self.initial_divisor
        end = start / self.final_divisor
        share = min(progress / epochs, 1.0)
        if share < self.peak:
            return _cosine(start, 1.0, share / self.peak)
        return _cosine(1.0, end, (share - self.peak) / (1 - self.peak))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
