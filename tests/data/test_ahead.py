"""Items made ahead are the same items, and nothing is left running when nobody wants more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from finetune.data.ahead import ahead


def test_the_items_come_in_their_order() -> None:
    assert list(ahead(iter(range(100)))) == list(range(100))
    assert list(ahead(iter(()))) == []


def test_an_item_is_made_while_the_one_before_is_used() -> None:
    second_begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second_begun.set()
        yield 2

    drawn = ahead(items())
    assert next(drawn) == 1
    assert second_begun.wait(5), "the second was not begun before it was asked for"
    drawn.close()


def test_an_error_is_raised_where_the_items_are_used() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    drawn = ahead(items())
    assert next(drawn) == 1
    with pytest.raises(ValueError, match="broken"):
        next(drawn)


def test_whoever_stops_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    drawn = ahead(iter(range(10**9)))
    assert next(drawn) == 0
    drawn.close()
    assert threading.active_count() == before
