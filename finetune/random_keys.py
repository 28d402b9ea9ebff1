"""Randomness as an argument: every draw is a function of the run's seed and of what it is drawn for.

The order of an epoch depends on (seed, epoch), an augmentation on (seed, epoch, image), the model's noise on
(seed, epoch, step). A run is therefore the same whatever the number of workers and wherever it was interrupted. Keys
are mixed by NumPy's ``SeedSequence`` (O'Neill 2015), so that neighbouring keys give unrelated streams.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["order", "augmentation", "noise"]
_PURPOSES: dict[Purpose, int] = {"order": 1, "augmentation": 2, "noise": 3}


def derive_seed(seed: int, purpose: Purpose, *keys: int) -> int:
    """A 32-bit seed for ``purpose`` at ``keys`` (non-negative integers)."""
    return int(np.random.SeedSequence([seed, _PURPOSES[purpose], *keys]).generate_state(1)[0])


def generator(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """A NumPy generator for ``purpose`` at ``keys``."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _PURPOSES[purpose], *keys])))
