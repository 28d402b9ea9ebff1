"""Ranges of numbers, declared where the number is: ``lr: Positive = 1e-3`` in a part's signature.

The configuration check reads them from the source, so that ``optimizer.lr=-1`` is refused, with everything else that is
wrong, before torch is imported. For Python they are plain floats and integers. No range contains NaN or infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple


class Within(NamedTuple):
    """A range: in words that follow "a number", and as a test."""

    words: str
    holds: Callable[[float], bool]


Positive = Annotated[float, Within("above 0", lambda value: 0 < value < math.inf)]
NotNegative = Annotated[float, Within("of at least 0", lambda value: 0 <= value < math.inf)]
Share = Annotated[float, Within("from 0 to 1", lambda value: 0 <= value <= 1)]
PositiveShare = Annotated[float, Within("above 0, up to 1", lambda value: 0 < value <= 1)]
ShareBelowOne = Annotated[float, Within("from 0 to below 1", lambda value: 0 <= value < 1)]
Count = Annotated[int, Within("of at least 1", lambda value: value >= 1)]
CountOrZero = Annotated[int, Within("of at least 0", lambda value: value >= 0)]
Seed = Annotated[int, Within("from 0 to 4294967295", lambda value: 0 <= value < 2**32)]
