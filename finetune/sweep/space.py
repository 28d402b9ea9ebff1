"""The values that a sweep tries: Hydra's own override syntax, from the command line or from ``conf/sweep/NAME.yaml``.

``choice(a,b)`` or ``a,b``, ``range(1,6)``, ``interval(1e-5,1e-2)``, ``tag(log,interval(1e-5,1e-2))``;
``int(interval(1,4))`` is whole numbers, both ends included. What the command line says about a key replaces the
preset's entry.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException

from finetune.errors import ConfigError


class Interval(NamedTuple):
    """All numbers from ``low`` to ``high``, drawn evenly, or evenly in the logarithm."""

    low: float
    high: float
    log: bool
    whole: bool


class Dimension(NamedTuple):
    """One key and what it may be: an interval, or values as they are typed (a single one is fixed)."""

    key: str
    values: tuple[str, ...]
    interval: Interval | None

    @property
    def is_fixed(self) -> bool:
        """Whether every job has the same value."""
        return self.interval is None and len(self.values) == 1


def dimensions(preset: dict[str, str], overrides: Sequence[str]) -> list[Dimension]:
    """The preset's dimensions, then the command line's, which replace those of the same key.

    Raises:
        ConfigError: an entry is not written in Hydra's syntax.
    """
    merged: dict[str, Dimension] = {}
    for text in [*(f"{key}={value}" for key, value in preset.items()), *overrides]:
        dimension = _dimension(text)
        merged.pop(dimension.key.lstrip("+~"), None)
        merged[dimension.key.lstrip("+~")] = dimension
    return list(merged.values())


def product(space: Sequence[Dimension]) -> list[list[str]]:
    """Every combination, the last key changing fastest.

    Raises:
        ConfigError: an interval has no list of values.
    """
    endless = [dimension.key for dimension in space if dimension.interval]
    if endless:
        raise ConfigError(
            f"{', '.join(endless)}: an interval has no end of values; list some, or use sweep=random or sweep=optuna"
        )
    choices = [[f"{dimension.key}={value}" for value in dimension.values] for dimension in space]
    return [list(combination) for combination in itertools.product(*choices)]


def sample(space: Sequence[Dimension], count: int, seed: int) -> list[list[str]]:
    """``count`` different combinations drawn at random; fewer when there are no more.

    The first ``n`` of a longer list are the list of ``n``, so a larger budget keeps what was done.
    """
    generator = random.Random(seed)  # noqa: S311 - no secret
    found: dict[tuple[str, ...], None] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        found[tuple(f"{dimension.key}={_draw(dimension, generator)}" for dimension in space)] = None
    return [list(combination) for combination in found]


def shown(value: float, *, whole: bool) -> str:
    """A drawn number as an override: six significant digits are more than any search resolves."""
    return str(round(value)) if whole else f"{value:.6g}"


def _draw(dimension: Dimension, generator: random.Random) -> str:
    if dimension.interval is None:
        return generator.choice(dimension.values)
    low, high, log, whole = dimension.interval
    if whole and not log:
        return str(generator.randint(int(low), int(high)))
    drawn = generator.uniform(math.log(low), math.log(high)) if log else generator.uniform(low, high)
    return shown(math.exp(drawn) if log else drawn, whole=whole)


def _dimension(text: str) -> Dimension:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"{text}: {str(error).splitlines()[0]}") from error
    key = override.get_key_element()
    if override.is_interval_sweep():
        return Dimension(key, (), _interval(text, override))
    if override.is_sweep_override():
        return Dimension(key, tuple(override.sweep_string_iterator()), None)
    return Dimension(key, (override.get_value_element_as_str(),), None)


def _interval(text: str, override: Override) -> Interval:
    value = override.value()
    assert isinstance(value, IntervalSweep)
    assert value.start is not None
    assert value.end is not None
    log = "log" in value.tags
    if value.start >= value.end or (log and value.start <= 0):
        raise ConfigError(
            f"{text}: an interval goes from a smaller to a larger number, both above 0 with tag(log, ...)"
        )
    whole = isinstance(value.start, int) and isinstance(value.end, int)
    return Interval(float(value.start), float(value.end), log, whole)
