"""Are two classifiers different on the same images, or is it luck?

McNemar's exact test (1947) looks only at the images on which one is right and the other wrong, and asks how often a
fair coin would split them so unevenly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class McNemar(NamedTuple):
    """Images that only the first, only the second classifier got right, and the two-sided p-value."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first_correct_N: npt.NDArray[np.bool_], second_correct_N: npt.NDArray[np.bool_]) -> McNemar:
    """Exact two-sided test; p is 1 where the two are right on the same images."""
    from scipy.stats import binomtest

    only_first = int((first_correct_N & ~second_correct_N).sum())
    only_second = int((second_correct_N & ~first_correct_N).sum())
    disputed = only_first + only_second
    p_value = float(binomtest(only_first, disputed, 0.5).pvalue) if disputed else 1.0
    return McNemar(only_first, only_second, p_value)
