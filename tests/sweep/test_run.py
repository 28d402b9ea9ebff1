"""Whole sweeps of a stub: isolation, exit codes, resumption, interruption, and the search."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.sweep.conftest import REPOSITORY, Stub

pytestmark = pytest.mark.slow  # every job is a Python process of its own


def test_five_jobs_that_end_in_five_ways_do_not_touch_each_other(stub: Stub) -> None:
    first = stub.run("act=ok,raise,exit,kill", "x=0.5")
    assert first.exit_code == 1
    assert [(row["overrides"], row["status"]) for row in first.rows] == [
        ("act=ok x=0.5", "completed"),
        ("act=raise x=0.5", "failed"),
        ("act=exit x=0.5", "failed"),
        ("act=kill x=0.5", "failed"),
    ]
    assert "RuntimeError: boom" in first.rows[1]["error"]
    assert "Traceback" in (first.directory / "act=raise" / "job.log").read_text()
    assert "exit code 0 before the job was done" in first.rows[2]["error"]
    assert "killed by SIGKILL" in first.rows[3]["error"]
    again = stub.run("act=ok,raise,exit,kill", "x=0.5", "sweep.resume=true")
    assert again.directory == first.directory
    assert again.exit_code == 1
    assert again.starts() == sorted(["act=ok"] + ["act=raise", "act=exit", "act=kill"] * 2)


def test_a_sweep_of_which_all_jobs_complete_ends_with_0_and_divides_the_cores(stub: Stub) -> None:
    found = stub.run("x=1,2,3,4", "sleep_s=0.3", "hydra.launcher.n_jobs=2")
    assert found.exit_code == 0
    assert [row["value"] for row in found.rows] == [str(1.0 - (x - 0.3) ** 2) for x in (1, 2, 3, 4)]
    given = {path.read_text().strip() for path in found.directory.glob("*/starts.txt")}
    cores = sorted(os.sched_getaffinity(0))
    assert given == {f"{len(cores[part::2])} {cores[part::2]}" for part in (0, 1)}


def test_twenty_runs_started_at_once_have_twenty_directories(stub: Stub) -> None:
    pattern = OmegaConf.load(REPOSITORY / "conf" / "train.yaml").hydra.run._get_node("dir")._value()
    command = [word for word in stub.command(f"hydra.run.dir={pattern}") if word != "-m"]
    started = [subprocess.Popen(command, cwd=stub.folder, env=stub.environment) for _ in range(20)]
    assert [process.wait() for process in started] == [0] * 20
    assert len(list(stub.folder.glob("runs/*/*/result.json"))) == 20


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_every_engine_runs_the_same_jobs_to_the_same_values(launcher: str, stub: Stub) -> None:
    here = stub.run("x=1,2", "act=ok,kill", "hydra.launcher.n_jobs=2")
    there = stub.run("x=1,2", "act=ok,kill", f"hydra/launcher={launcher}", "hydra.sweep.dir=multirun/a/b")
    columns = ("overrides", "status", "exit_code", "value")
    assert [[row[name] for name in columns] for row in there.rows] == [
        [row[name] for name in columns] for row in here.rows
    ]
    assert [row["status"] for row in there.rows] == ["completed", "failed"] * 2
    assert there.exit_code == 1


def test_a_directory_with_a_sweep_in_it_is_not_written_over(stub: Stub) -> None:
    assert stub.run("x=1", "hydra.sweep.dir=multirun/a/b").exit_code == 0
    again = stub.run("x=1", "hydra.sweep.dir=multirun/a/b")
    assert again.exit_code == 2
    assert "holds a sweep; sweep.resume=true goes on with it" in again.output
    assert len(again.starts()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_stopped_half_way_goes_on_with_what_is_left(number: signal.Signals, stub: Stub) -> None:
    arguments = ("x=1,2,3,4", "sleep_s=0.7")
    process = stub.start(*arguments)
    while len(list(stub.folder.glob("multirun/*/*/*/result.json"))) < 3:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    resumed = stub.run(*arguments, "sweep.resume=true")
    assert resumed.exit_code == 0
    assert [row["status"] for row in resumed.rows] == ["completed"] * 4
    assert resumed.starts() == ["x=1", "x=2", "x=3", "x=3", "x=4"]


def test_a_wrong_choice_is_one_message(stub: Stub) -> None:
    basic = stub.run("x=1", "hydra/launcher=basic")
    assert basic.exit_code == 2
    assert basic.output.startswith(
        "error: hydra/launcher: expected local, joblib, submitit_local, submitit_slurm or ray"
    )
    endless = stub.run("x=interval(0,1)")
    assert endless.exit_code == 2
    assert endless.output.startswith("error: x: an interval has no end of values")


_SEARCH = ("sweep=optuna", "sweep.space=null", "x=interval(-2.0,2.0)", "sweep.pruner=none")


def test_a_search_survives_being_killed_and_finds_the_optimum(stub: Stub, tmp_path: Path) -> None:
    import optuna

    arguments = (*_SEARCH, "sweep.trials=14", "hydra.sweep.dir=multirun/a/b")
    process = stub.start(*arguments)
    while len(list(stub.folder.glob("multirun/a/b/*/result.json"))) < 6:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    resumed = stub.run(*arguments, "sweep.resume=true")
    assert resumed.exit_code == 0
    (name,) = optuna.get_all_study_names(f"sqlite:///{tmp_path}/multirun/a/b/optuna.db")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path}/multirun/a/b/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 14
    assert study.trials[0].params == {"x": 1.0}  # the configuration as it stands
    assert abs(study.best_params["x"] - 0.3) < 0.4
    assert len(resumed.rows) == 14
