"""The process behind ``examiners.py``: paths in, records out, over stdin and stdout; nothing for users to call.

A message is its length (4 bytes) and its bytes. A request is a run of paths separated by NUL; each is answered on its
own with the record's bytes and its texts separated by NUL. Address space is limited, so that a bomb that hides its size
becomes a verdict instead of taking the machine's memory; a file that takes more than ``FILE_PROCESSOR_S`` of processor
time ends the process by SIGPROF, whatever else the machine does meanwhile.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from typing import BinaryIO

_MAX_ADDRESS_SPACE = 4 << 30
FILE_PROCESSOR_S = 5.0


def send(stream: BinaryIO, message: bytes) -> None:
    """Write one message."""
    stream.write(struct.pack("<I", len(message)) + message)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """Read one message; None when the other side is gone."""
    head = _exactly(stream, 4)
    return None if head is None else _exactly(stream, struct.unpack("<I", head)[0])


def _exactly(stream: BinaryIO, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = stream.read(length - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MAX_ADDRESS_SPACE if hard == resource.RLIM_INFINITY else min(_MAX_ADDRESS_SPACE, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _start_clock(seconds: float) -> None:
    """End this process after so much processor time, also inside a decoder; 0 stops the clock."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer requests until stdin ends."""
    from finetune.data.verdict import examine_file

    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a decoder library that prints must not disturb the answers
    _limit_memory()
    send(outbox, b"ready")
    while (request := receive(inbox)) is not None:
        for path in request.split(b"\0"):
            _start_clock(FILE_PROCESSOR_S)
            record, texts = examine_file(os.fsdecode(path))
            _start_clock(0)
            joined = "\0".join(text.replace("\0", " ") for text in texts)
            send(outbox, record.tobytes() + joined.encode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    main()
