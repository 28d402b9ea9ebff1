"""Rows about data sets before training: an examination, the same again, and a million files listed and split.

    python -m bench data

The examination is compared with decoding in processor seconds of all processes, which is what "per core" means and what
a busy machine does not change.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.measure import REPOSITORY, Cost, alternate, command
from bench.table import Row

_EXAMINED, _CHECKED = 1000, 10_000
_FILES, _CLASSES = 1_000_000, 100
_LOAD = """
import json, re, sys, time
from pathlib import Path
from finetune.data.folder import FolderData
started = time.perf_counter()
table = FolderData(0, path=sys.argv[1], test_fraction=0.1).load()
seconds = time.perf_counter() - started
counts = [len(table.rows(split)) for split in ("train", "val", "test")]
assert sum(counts) == int(sys.argv[2]), counts
# not ru_maxrss: that counts the process it was started from as well
peak_mib = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([seconds, time.process_time(), peak_mib]))
"""


def data(work: Path, repeats: int) -> Iterator[Row]:
    """Examination / decoding; a check that was made before; a million files."""
    yield from examination(work / "examined", repeats)
    yield from recheck(work / "checked", repeats)
    yield from million(work / "million")


def examination(root: Path, repeats: int) -> Iterator[Row]:
    """Reading and decoding every file once, and examining the data set, in turn."""
    import simplejpeg

    from finetune.data.examine import examine
    from finetune.data.folder import FolderData

    files = write_set(root / "photographs", _EXAMINED, 375, 500)
    table = FolderData(0, path=str(root / "photographs")).load()
    caches = (root / f"cache{number}" for number in itertools.count())

    def decode() -> float:
        started = processor_s()
        for file in files:
            simplejpeg.decode_jpeg(file.read_bytes(), "RGB")
        return processor_s() - started

    def look() -> float:
        started = processor_s()
        report = examine(table, workers=1, progress=False, cache_dir=next(caches))
        assert report.cached == 0
        return processor_s() - started

    look()  # SciPy is imported once
    decoding, examining = (statistics.median(found) for found in alternate(repeats, decode, look))
    note = f"{examining:.2f} s / {decoding:.2f} s of processor, {_EXAMINED} photographs of 0.19 megapixels"
    yield Row("check / decoding the files once, per core", examining / decoding, "<= 1.5", note)


def recheck(root: Path, repeats: int) -> Iterator[Row]:
    """The whole command on a data set that it has seen."""
    write_set(root, _CHECKED, 64, 64)

    def check() -> Cost:
        return command("-m", "finetune.check", f"data.path={root}", f"hydra.run.dir={root.with_suffix('.out')}")

    first = check().seconds
    again = statistics.median(check().seconds for _ in range(repeats))
    note = f"seconds; the first time {first:.1f} s"
    yield Row(f"a cached re-check of {_CHECKED:,} files", again, "<= 3", note)


def million(root: Path) -> Iterator[Row]:
    """Empty files in a hundred class folders, listed and split in a process of its own."""
    for label in range(_CLASSES):
        place = root / f"class_{label:03d}"
        place.mkdir(parents=True)
        for number in range(_FILES // _CLASSES):
            os.close(os.open(f"{place}/image_{number:06d}.jpg", os.O_CREAT | os.O_WRONLY))
    words = [sys.executable, "-c", _LOAD, str(root), str(_FILES)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    seconds, processor, peak_mib = json.loads(done.stdout)
    yield Row("one million files listed and split", seconds, "<= 60", f"seconds; {processor:.0f} s of processor")
    yield Row("peak memory of that", peak_mib * 1.048576, "<= 400", "MB, the interpreter and NumPy included")


def write_set(root: Path, count: int, height: int, width: int) -> list[Path]:
    """``count`` different JPEG files in two classes; kept if they are there."""
    import simplejpeg

    files = [root / "ab"[number % 2] / f"{number:06d}.jpg" for number in range(count)]
    if files[-1].exists():
        return files
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(simplejpeg.encode_jpeg(noise(number, height, width), quality=90))
    return files


def noise(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth noise with grain: compresses like a photograph, and no two look alike."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (height // 16 + 2, width // 16 + 2, 3))
    smooth = np.kron(coarse, np.ones((16, 16, 1)))[:height, :width]
    return np.clip(smooth + generator.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def processor_s() -> float:
    """Processor seconds of this process and its ended children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
