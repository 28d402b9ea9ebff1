"""The next items of an iterator are made while the last one is used: decoding beside the network's computation.

For passes that decode in this process: libjpeg, Pillow and torch all let go of the interpreter while they work, so two
cores are busy where one was. Costs at most ``depth`` items of memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """``items`` in their order, drawn on a thread that ends with this iterator; what it raises is raised here."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    left = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not left.is_set():
            try:
                ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def draw() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to whoever draws
            put(None, error)
            return
        put(None, StopIteration())

    thread = threading.Thread(target=draw, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        left.set()
        thread.join()
