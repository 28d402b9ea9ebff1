"""The process of a command: nothing is lost when it leaves, and freed memory is used again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LEAVING = """
import atexit, logging, sys, threading, time
from pathlib import Path
from finetune import interpreter

def late():
    time.sleep(0.2)
    Path("thread").write_text("done")

logging.basicConfig(filename="log", level=logging.INFO)
atexit.register(lambda: Path("exit").write_text("done"))
threading.Thread(target=late).start()
logging.info("a line")

def main():
    try:
        sys.stdout.write("not flushed")
        sys.exit(ENDING)
    finally:
        Path("finally").write_text("done")

interpreter.run(main)
"""

FAULTS = """
import resource, sys
import numpy as np
from finetune import interpreter
if sys.argv[1] == "tuned":
    interpreter.tune()
def work():
    for _ in range(50):
        parts = [np.ones(1 << 20) for _ in range(4)]  # 8 MiB each
        del parts
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(("ending", "code", "said"), [("3", 3, ""), ("", 0, ""), ("'no'", 1, "no\n")])
def test_threads_handlers_and_buffers_are_done_when_it_leaves(
    tmp_path: Path, ending: str, code: int, said: str
) -> None:
    script = LEAVING.replace("ENDING", ending)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "not flushed", said)
    assert (tmp_path / "finally").read_text() == "done"
    assert (tmp_path / "thread").read_text() == "done"
    assert (tmp_path / "exit").read_text() == "done"
    assert (tmp_path / "log").read_text() == "INFO:root:a line\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator is told")
def test_memory_that_was_freed_is_not_fetched_from_the_kernel_again() -> None:
    faults = {
        mode: int(subprocess.check_output([sys.executable, "-c", FAULTS, mode], text=True, timeout=60))
        for mode in ("plain", "tuned")
    }
    assert faults["plain"] > 100_000, "the allocator keeps memory by itself: tune() is not needed any more"
    assert faults["tuned"] < faults["plain"] / 100
