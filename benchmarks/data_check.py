"""How long an examination takes, against decoding the files once on the same core; and a re-check of 10,000 files.

    python benchmarks/data_check.py

Bounds: the examination takes at most 1.5 times as long as decoding; a cached re-check of 10,000 files at most 3 s, the
start of Python and both reports included. About two minutes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg

from finetune.data.examine import examine
from finetune.data.folder import FolderData

_PHOTOGRAPHS = 1500
_SMALL = 10_000


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth noise with grain: compresses like a photograph."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (height // 16 + 2, width // 16 + 2, 3))
    smooth = np.kron(coarse, np.ones((16, 16, 1)))[:height, :width]
    return np.clip(smooth + generator.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def processor_s() -> float:
    """Processor seconds of this process and its ended children; unlike wall time, fair on a busy machine."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def write_set(root: Path, count: int, height: int, width: int, distinct: int) -> list[Path]:
    """``count`` JPEG files in two classes; the last bytes differ, so no two files are equal."""
    encoded = [simplejpeg.encode_jpeg(photograph(seed, height, width), quality=90) for seed in range(distinct)]
    files = []
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
    for number in range(count):
        comment = b"\xff\xfe\x00\x0a" + f"{number:08d}".encode()
        data = encoded[number % distinct]
        files.append(root / "ab"[number % 2] / f"{number:06d}.jpg")
        files[-1].write_bytes(data[:2] + comment + data[2:])
    return files


def examination(root: Path) -> dict[str, float]:
    """Processor seconds (all processes) of reading and decoding every file once, and of examining the data set."""
    files = write_set(root / "photographs", _PHOTOGRAPHS, 375, 500, _PHOTOGRAPHS)
    table = FolderData(0, path=str(root / "photographs")).load()
    decoding, examining = [], []
    for attempt in range(3):
        started = processor_s()
        for file in files:
            simplejpeg.decode_jpeg(file.read_bytes(), "RGB")
        decoding.append(processor_s() - started)
        started = processor_s()
        report = examine(table, workers=1, progress=False, cache_dir=root / f"cache{attempt}")
        examining.append(processor_s() - started)
        assert report.cached == 0
    return {
        "decode_s": min(decoding),
        "examine_s": min(examining),
        "examine_per_decode": min(examining) / min(decoding),
        "examined_files_per_s_and_core": _PHOTOGRAPHS / min(examining),
    }


def recheck(root: Path) -> dict[str, float]:
    """Seconds of the whole command, the first time and again."""
    write_set(root / "small", _SMALL, 64, 64, _SMALL)
    command = [sys.executable, "-m", "finetune.check", f"data.path={root / 'small'}", f"hydra.run.dir={root / 'out'}"]
    seconds, processor = [], []
    for _ in range(4):
        started, worked = time.perf_counter(), processor_s()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
        processor.append(processor_s() - worked)
    return {
        "check_10000_s": seconds[0],
        "recheck_10000_s": min(seconds[1:]),
        "recheck_10000_processor_s": min(processor[1:]),
    }


def measure() -> dict[str, float]:
    """All figures; temporary files only."""
    with tempfile.TemporaryDirectory() as folder:
        return examination(Path(folder)) | recheck(Path(folder))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
