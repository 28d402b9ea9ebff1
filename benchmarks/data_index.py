"""One million (empty) files: how long listing and splitting take, and how much memory.

    python benchmarks/data_index.py

Bounds: 60 s and 400 MB, measured in a process of its own. Writing the files takes a minute or two before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_FILES, _CLASSES = 1_000_000, 100
_LOAD = """
import json, resource, sys, time
from finetune.data.folder import FolderData
started, worked = time.perf_counter(), time.process_time()
table = FolderData(0, path=sys.argv[1], test_fraction=0.1).load()
seconds, processor = time.perf_counter() - started, time.process_time() - worked
counts = [len(table.rows(split)) for split in ("train", "val", "test")]
assert sum(counts) == int(sys.argv[2]), counts
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"list_and_split_million_s": seconds, "list_and_split_million_processor_s": processor, "peak_mib": peak}))
"""


def measure() -> dict[str, float]:
    """Seconds and MiB."""
    with tempfile.TemporaryDirectory() as folder:
        for label in range(_CLASSES):
            place = Path(folder) / f"class_{label:03d}"
            place.mkdir()
            for number in range(_FILES // _CLASSES):
                os.close(os.open(f"{place}/image_{number:06d}.jpg", os.O_CREAT | os.O_WRONLY))
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, folder, str(_FILES)], check=True, capture_output=True, text=True
        )
        figures: dict[str, float] = json.loads(done.stdout)
        return figures


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
