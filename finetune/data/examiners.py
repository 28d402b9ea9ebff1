"""Processes that examine files, one per core, and outlive any file: a decoder that crashes or hangs costs one verdict.

Each examiner is a plain ``python -m finetune.data.examiner`` that reads paths and answers with records. It imports
neither torch nor the caller's main module, so it starts in a third of a second, from any process (also one that has
threads or a GPU open, where forking is unsafe). Small sets of ordinary files are examined here, without a process.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from finetune.data.examiner import FILE_PROCESSOR_S, receive, send
from finetune.data.verdict import RECORD, examine_file, lost_file

Put = Callable[[int, npt.NDArray[np.void], list[str]], None]
FILE_WAIT_S = 60.0
"""For a file that does not come at all (a network drive that is gone); one that is busy has ``FILE_PROCESSOR_S``."""
_CHUNK = 16
_FEW_FILES, _FEW_BYTES = 64, 16 << 20
_STURDY = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def examine_files(rows: Sequence[int], path_of: Callable[[int], str], total_bytes: int, workers: int, put: Put) -> None:
    """Examine ``path_of(row)`` for every row and ``put`` each result, in any order, from one thread at a time."""
    rest = list(rows)
    if len(rest) <= _FEW_FILES and total_bytes <= _FEW_BYTES:
        ordinary = [row for row in rest if _is_sturdy(path_of(row))]
        for row in ordinary:
            put(row, *examine_file(path_of(row)))
        known = set(ordinary)
        rest = [row for row in rest if row not in known]
    if not rest:
        return
    waiting: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    chunk = max(1, min(_CHUNK, len(rest) // (4 * workers)))
    for start in range(0, len(rest), chunk):
        waiting.put(rest[start : start + chunk])
    lock = threading.Lock()

    def locked_put(row: int, record: npt.NDArray[np.void], texts: list[str]) -> None:
        with lock:
            put(row, record, texts)

    count = min(workers, waiting.qsize())
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_serve, args=(waiting, path_of, locked_put, failures), daemon=True)
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _is_sturdy(path: str) -> bool:
    """JPEG or PNG by content: formats whose decoders do not crash."""
    try:
        if not os.path.isfile(path):  # noqa: PTH113 - bytes that are no UTF-8; a FIFO must not be opened
            return False
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(8).startswith(_STURDY)
    except OSError:
        return False


def _serve(
    waiting: queue.SimpleQueue[list[int]], path_of: Callable[[int], str], put: Put, failures: list[BaseException]
) -> None:
    """One examiner's life: chunks until none is left; started anew after a crash."""
    examiner: _Examiner | None = None
    try:
        while True:
            try:
                rows = waiting.get_nowait()
            except queue.Empty:
                return
            while rows:
                examiner = examiner or _Examiner()
                done, reason = examiner.examine(rows, path_of, put)
                rows = rows[done:]
                if reason:
                    put(rows[0], *lost_file(reason))
                    rows = rows[1:]
                    examiner.close()
                    examiner = None
    except BaseException as error:  # handed to the thread that waits  # noqa: BLE001
        failures.append(error)
    finally:
        if examiner is not None:
            examiner.close()


class _Examiner:
    """A child process and the watch over it."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH", "")]))
        command = [sys.executable, "-m", "finetune.data.examiner"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,  # so that the pipe itself tells whether an answer is there
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.inbox: BinaryIO = self.process.stdin  # type: ignore[assignment]
        self.outbox: BinaryIO = self.process.stdout  # type: ignore[assignment]
        if receive(self.outbox) != b"ready":
            raise RuntimeError(f"{' '.join(command)} does not start (exit code {self.process.wait()})")

    def examine(self, rows: list[int], path_of: Callable[[int], str], put: Put) -> tuple[int, str]:
        """How many rows are done, and why the next one ended the process (empty: all went well)."""
        try:
            send(self.inbox, b"\0".join(os.fsencode(path_of(row)) for row in rows))
        except OSError:  # it has died since its last answer
            return 0, self._obituary(timed_out=False)
        for position, row in enumerate(rows):
            answers, _, _ = select.select([self.outbox], [], [], FILE_WAIT_S)
            if not answers:
                self.process.kill()
            answer = receive(self.outbox)
            if answer is None:
                return position, self._obituary(timed_out=not answers)
            record = np.frombuffer(answer[: RECORD.itemsize], dtype=RECORD)[0]
            put(row, record, answer[RECORD.itemsize :].decode("utf-8", "surrogateescape").split("\0"))
        return len(rows), ""

    def close(self) -> None:
        """End the process."""
        for pipe in (self.inbox, self.outbox):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _obituary(self, *, timed_out: bool) -> str:
        if timed_out:
            return f"reading it takes more than {FILE_WAIT_S:.0f} s"
        started = time.monotonic()
        while self.process.poll() is None and time.monotonic() - started < 5:
            time.sleep(0.01)
        if self.process.returncode == -getattr(signal, "SIGPROF", 0):
            return f"reading it takes more than {FILE_PROCESSOR_S:.0f} s of processor time"
        return f"reading it crashes the decoder (exit code {self.process.returncode})"
