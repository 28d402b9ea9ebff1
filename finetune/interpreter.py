"""A command's own process: it starts and ends quickly, and keeps the memory that it will need again.

Each is worth about a second or more of every command on two cores; docs/speed.md has the figures. None of it is done for
somebody who imports the package.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30
_LARGEST = 32 << 20
"""Bytes; more is not accepted for M_MMAP_THRESHOLD (mallopt(3))."""


def tune() -> None:
    """Collect garbage seldom and keep freed memory.

    Importing torch, timm and Lightning makes a million objects that stay; looking through them again and again for
    cycles took a third of the time of the imports. And each activation of a forward pass is freed and allocated again
    with the next batch; glibc gives such blocks back to the kernel, which has to clear them each time: up to a third of
    the time of a float32 pass. Other systems' allocators are left as they are.
    """
    gc.set_threshold(50_000, 20, 50)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)


def run(main: Callable[[], None]) -> NoReturn:
    """``main`` as all that this process is for; ends it with the code of its ``SystemExit``, or 0."""
    tune()
    code: int | str | None = None
    try:
        main()
    except SystemExit as ending:
        code = ending.code
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    leave(1 if isinstance(code, str) else code or 0)


def leave(code: int) -> NoReturn:
    """End the process as ``sys.exit(code)`` does, without taking apart a million objects that end with it anyway.

    Threads are waited for and exit handlers run, as in the standard library's ``multiprocessing.process``.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
