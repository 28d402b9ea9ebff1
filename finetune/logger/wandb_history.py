"""The last step that earlier parts of a W&B run have on disk, so that a resumed run goes on after it.

W&B keeps every record in ``wandb/*-ID/run-ID.wandb``: a seven-byte header, then LevelDB's log format (blocks of
32 KiB; each chunk a checksum, a length and a type; doc/log_format.md of github.com/google/leveldb) around the protocol
buffers of ``wandb.proto``. Offline there is no server to ask, and a killed run's own notes may be newer than what
reached the disk; the file itself cannot be wrong. Costs a few milliseconds per megabyte, once per resume.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 32768
_FILE_HEADER_BYTES = 7
_CHUNK_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_records(path: Path) -> Iterator[Any]:
    """The records of one ``.wandb`` file in order; a tail that was cut off by a kill ends the iteration."""
    message = importlib.import_module("google.protobuf.message")  # neither module ships usable types
    records = importlib.import_module("wandb.proto.wandb_internal_pb2")

    for payload in _payloads(path.read_bytes()):
        record = records.Record()
        try:
            record.ParseFromString(payload)
        except message.DecodeError:
            return
        yield record


def last_steps(wandb_directory: Path, run_id: str) -> dict[str, int]:
    """For every metric the highest step at which any part of the run ``run_id`` has it; empty for a new run."""
    last: dict[str, int] = {}
    for path in sorted(wandb_directory.glob(f"*-{run_id}/run-{run_id}.wandb")):
        for record in read_records(path):
            if record.WhichOneof("record_type") == "history":
                step = int(record.history.step.num)
                for item in record.history.item:
                    key = item.key or "/".join(item.nested_key)
                    last[key] = max(step, last.get(key, -1))
    return last


def _payloads(data: bytes) -> Iterator[bytes]:
    position, parts = _FILE_HEADER_BYTES, bytearray()
    while position + _CHUNK_HEADER.size <= len(data):
        left_in_block = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left_in_block < _CHUNK_HEADER.size:  # a block's last bytes are padding when no header fits
            position += left_in_block
            continue
        _, length, kind = _CHUNK_HEADER.unpack_from(data, position)
        if not _FULL <= kind <= _LAST or position + _CHUNK_HEADER.size + length > len(data):
            return
        position += _CHUNK_HEADER.size
        parts += data[position : position + length]
        position += length
        if kind in (_FULL, _LAST):
            yield bytes(parts)
            parts.clear()
