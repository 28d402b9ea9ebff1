"""One job: a row with a status, whatever happens to it."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from finetune.sweep.job import Job, Outcome, Slot, run_job

_COMPLETE = (
    "import json; json.dump({'status': 'completed', 'monitor': {'name': 'm', 'value': 0.5}}, open('result.json', 'w'))"
)


def _job(directory: Path, code: str, **fields: object) -> Job:
    directory.mkdir(exist_ok=True)
    return Job(7, "name", directory, (), (sys.executable, "-c", code), directory, **fields)  # type: ignore[arg-type]


def _run(directory: Path, code: str, **fields: object) -> Outcome:
    return run_job(_job(directory, code, **fields), Slot())


def test_a_job_that_completes_has_its_monitor(tmp_path: Path) -> None:
    found = _run(tmp_path, _COMPLETE)
    assert (found.number, found.status, found.exit_code, found.monitor, found.value) == (7, "completed", 0, "m", 0.5)


@pytest.mark.parametrize(
    ("code", "exit_code", "error"),
    [
        ("raise ValueError('boom')", 1, "exit code 1 before the job was done; the end of job.log: ValueError: boom"),
        ("import sys; sys.exit(0)", 0, "exit code 0 before the job was done; the end of job.log: (empty)"),
        ("import os; os.kill(os.getpid(), 9)", -9, "killed by SIGKILL"),
        ("import os; os.abort()", -6, "killed by SIGABRT"),
    ],
)
def test_a_job_that_cannot_write_its_result_gets_one(code: str, exit_code: int, error: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "running", "seconds": 3}')
    found = _run(tmp_path, code)
    assert (found.status, found.exit_code, found.error) == ("failed", exit_code, error)
    assert json.loads((tmp_path / "result.json").read_text()) == {"status": "failed", "seconds": 3, "error": error}


def test_the_log_has_output_and_traceback(tmp_path: Path) -> None:
    _run(tmp_path, "print('said'); raise ValueError('boom')")
    log = (tmp_path / "job.log").read_text()
    assert log.startswith("said\nTraceback (most recent call last):")


def test_a_result_that_the_job_wrote_is_left_alone(tmp_path: Path) -> None:
    written = '{"status": "interrupted", "error": "asked to"}'
    (tmp_path / "result.json").write_text(written)
    assert _run(tmp_path, "import sys; sys.exit(143)").status == "interrupted"
    assert (tmp_path / "result.json").read_text() == written


@pytest.mark.parametrize("number", [15, 2])
def test_a_job_that_is_asked_to_leave_before_it_can_answer_is_interrupted(number: int, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "running"}')
    code = f"import os, signal; signal.signal({number}, signal.SIG_DFL); os.kill(os.getpid(), {number})"
    assert _run(tmp_path, code).status == "interrupted"


def test_a_job_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    found = _run(tmp_path, "import time; time.sleep(60)", timeout_s=0.2)
    assert (found.status, found.exit_code) == ("failed", -9)
    assert found.error == "stopped after 0.2 s (sweep.job_timeout_s)"


def test_no_job_begins_after_the_sweeps_time(tmp_path: Path) -> None:
    found = _run(tmp_path, _COMPLETE, not_after=time.time() - 1)
    assert found.status == "pending"
    assert not (tmp_path / "result.json").exists()


def test_threads_cores_and_gpus_are_those_of_the_slot(tmp_path: Path) -> None:
    code = (
        "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['CUDA_VISIBLE_DEVICES'], os.sched_getaffinity(0))"
    )
    run_job(_job(tmp_path, code), Slot(cores=(0,), gpus=("2", "3"), threads=5))
    assert (tmp_path / "job.log").read_text() == "5 2,3 {0}\n"


def test_a_second_process_waits_for_the_first_and_does_not_repeat_its_work(tmp_path: Path) -> None:
    job = _job(tmp_path, f"import time; time.sleep(0.5); {_COMPLETE}; open('starts', 'a').write('x')")
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(run_job(job, Slot()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.status for found in outcomes] == ["completed", "completed"]
    assert (tmp_path / "starts").read_text() == "x"
