"""What every scheduler promises: a factor between 0 and 1, without jumps, that is a function of the position alone."""

from __future__ import annotations

import pytest

LENGTHS = (1, 2, 5, 30, 300)


@pytest.mark.parametrize("epochs", LENGTHS)
def test_the_factor_stays_between_0_and_1_and_comes_near_1(scheduler, epochs, part):
    factor = part("scheduler", scheduler)
    values = [factor(epochs * (step + 0.5) / 1000, epochs) for step in range(1000)]
    assert all(0 < value <= 1 for value in values)
    assert max(values) > 0.99


@pytest.mark.parametrize("epochs", LENGTHS)
def test_the_factor_makes_no_jumps(scheduler, epochs, part):
    factor = part("scheduler", scheduler)
    for step in range(1, 1000):
        position = epochs * step / 1000
        assert factor(position + 1e-6, epochs) == pytest.approx(factor(position - 1e-6, epochs), abs=1e-4), position


def test_the_factor_remembers_nothing(scheduler, part):
    factor = part("scheduler", scheduler)
    forwards = [factor(step / 10, 10) for step in range(1, 100)]
    backwards = [factor(step / 10, 10) for step in range(99, 0, -1)]
    assert forwards == backwards[::-1]


def test_beyond_the_end_the_factor_stays_what_it_was(scheduler, part):
    factor = part("scheduler", scheduler)
    assert factor(10.5, 10) == pytest.approx(factor(10.0, 10))
