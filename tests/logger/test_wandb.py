"""The W&B logger: offline when it must be, nothing lost on resume, no secret written, always closed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from finetune.logger.wandb import ID_FILE, WandbLogger
from finetune.logger.wandb_server import ask
from tests.logger.wandb_stub import config, history, records


def _train(logger: WandbLogger, first_step: int, stop_step: int) -> None:
    """What Lightning sends in epochs of five steps."""
    for step in range(first_step, stop_step):
        logger.log_metrics({"train/loss": 1.0 / (step + 1), "epoch": step // 5}, step=step)
        if step % 5 == 4:
            logger.log_metrics({"val/accuracy": step / 100, "epoch": step // 5}, step=step)


def test_an_offline_run_holds_configuration_metrics_tables_and_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "split.csv").write_text(
        "path,label,split,sha256\na.png,cat,train,0\nb.png,dog,val,0\nc.png,dog,train,0\n"
    )
    result = {"status": "completed", "val": {"accuracy": 0.75}, "test": {"accuracy": 0.5}, "seconds": {"total": 3.5}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    logger = WandbLogger(tmp_path, {"optimizer": {"lr": 0.01, "betas": [0.9, 0.99]}, "seed": 3})
    _train(logger, 0, 10)
    logger.finish("completed")
    logged = config(tmp_path)
    assert (logged["optimizer.lr"], logged["optimizer.betas"], logged["seed"]) == (0.01, [0.9, 0.99], 3)
    rows = history(tmp_path)
    assert [row["_step"] for row in rows] == list(range(10))
    assert [row["val/accuracy"] for row in rows if "val/accuracy" in row] == [0.04, 0.09]
    assert rows[3]["train/loss"] == 0.25
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/split_*.json")
    assert json.loads(table.read_text()) == {
        "columns": ["class", "train", "val"],
        "data": [["cat", 1, 0], ["dog", 1, 1]],
    }
    summary = {
        (item.key or item.nested_key[0]): item.value_json for r in records(tmp_path, "summary") for item in r.update
    }
    assert (summary["best/val/accuracy"], summary["test/accuracy"], summary["status"]) == ("0.75", "0.5", '"completed"')
    assert list(tmp_path.glob("wandb/offline-run-*/files/split.csv"))


def test_a_resumed_run_keeps_its_id_and_its_steps_only_rise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = WandbLogger(tmp_path, {})
    _train(first, 0, 14)
    first.finish("interrupted")
    time.sleep(1.1)  # W&B names the parts by the second
    resumed = WandbLogger(tmp_path, {})  # from a checkpoint of step 10: steps 10 to 13 are computed again
    _train(resumed, 10, 20)
    resumed.finish("completed")
    assert {record.run_id for record in records(tmp_path, "run")} == {(tmp_path / ID_FILE).read_text().strip()}
    rows = history(tmp_path)
    assert [row["_step"] for row in rows] == list(range(20))
    assert [row["_step"] for row in rows if "val/accuracy" in row] == [4, 9, 14, 19]


def test_what_a_resumed_run_had_not_yet_logged_is_logged_after_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = WandbLogger(tmp_path, {})
    first.log_metrics({"train/loss": 1.0}, step=4)
    first.finish("interrupted")  # stopped during the validation that follows step 4
    time.sleep(1.1)
    resumed = WandbLogger(tmp_path, {})
    resumed.log_metrics({"train/loss": 1.0}, step=4)
    resumed.log_metrics({"val/accuracy": 0.5}, step=4)
    resumed.finish("completed")
    assert [(row["_step"], row.get("train/loss"), row.get("val/accuracy")) for row in history(tmp_path)] == [
        (4, 1.0, None),
        (5, None, 0.5),
    ]


@pytest.mark.parametrize(("status", "exit_code"), [("completed", 0), ("failed", 1), ("interrupted", 1)])
def test_a_run_is_closed_with_the_exit_code_of_its_status(
    status: str, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(tmp_path, {})
    logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.finalize("success")  # Lightning, after fit
    logger.finish(status)
    assert [record.exit_code for record in records(tmp_path, "exit")] == [exit_code]


def test_no_secret_reaches_a_file_or_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    canaries = [f"canary{name}0123456789" for name in ("env", "key", "url", "arg")]
    environment, key, url, argument = canaries
    monkeypatch.setenv("MY_SERVICE_TOKEN", environment)
    monkeypatch.setattr("sys.argv", ["train", f"logger.x.password={argument}", f"note={environment}"])
    secretive = {"a": {"api_key": key}, "storage": f"postgresql://me:{url}@host/db", "note": f"see {environment}"}
    logger = WandbLogger(tmp_path, secretive)
    _train(logger, 0, 6)
    logger.log_hyperparams({"hub_token": key})
    logger.finish("completed")
    sent = "\n".join(wandb_server.received) + caplog.text
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode(errors="replace")
    assert "train/loss" in sent  # the server did get the run
    assert [canary for canary in canaries if canary in sent + kept] == []
    assert "k" * 40 not in sent + kept


def test_without_a_key_the_run_is_offline_and_the_line_to_upload_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    caplog.set_level("INFO")
    logger = WandbLogger(tmp_path, {})
    _train(logger, 0, 2)
    logger.finish("completed")
    assert f"there is no API key for {wandb_server.url}" in caplog.text
    assert f"wandb sync --include-online {tmp_path}/wandb/" in caplog.text
    assert len(history(tmp_path)) == 2
    assert wandb_server.received == []


def test_a_server_that_falls_silent_after_the_question_means_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    wandb_server.silent_after = "Viewer"
    logger = WandbLogger(tmp_path, {}, server_timeout_s=1.0, finish_timeout_s=1.0)
    _train(logger, 0, 2)
    logger.finish("completed")
    assert "W&B: offline, because" in caplog.text
    assert len(history(tmp_path)) == 2


def test_a_server_that_falls_silent_during_the_training_does_not_hold_up_its_end(
    tmp_path: Path, wandb_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    logger = WandbLogger(tmp_path, {}, finish_timeout_s=1.0)
    _train(logger, 0, 2)
    wandb_server.silent.set()
    _train(logger, 2, 7)
    logger.finish("completed")
    assert "the upload did not end within 1 s" in caplog.text
    assert "wandb sync --include-online" in caplog.text
    assert [row["_step"] for row in history(tmp_path)] == list(range(7))


def test_a_broken_tracker_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(tmp_path, {})
    run = logger.experiment

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ConnectionResetError("Connection lost")

    monkeypatch.setattr(run, "log", broken)
    _train(logger, 0, 3)
    logger.finish("completed")
    assert run._is_finished


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    logger = WandbLogger(tmp_path, {}, mode="disabled")
    _train(logger, 0, 2)
    logger.finish("completed")
    assert not list(tmp_path.rglob("*.wandb"))


def test_the_server_is_asked_once_and_told_apart(wandb_server: Any) -> None:
    assert ask(wandb_server.url, "k" * 40, 5.0).ok
    wrong = ask(wandb_server.url, "w" * 40, 5.0)
    assert (wrong.ok, wrong.reason) == (False, f"{wandb_server.url} does not accept the API key (HTTP 401)")
    refused = ask("http://127.0.0.1:9", "k" * 40, 5.0)
    assert not refused.ok
    assert "cannot be reached" in refused.reason
    assert not ask("file:///etc/passwd", "k" * 40, 5.0).ok
    wandb_server.silent.set()
    silent = ask(wandb_server.url, "k" * 40, 0.3)
    assert (silent.ok, silent.reason) == (False, f"{wandb_server.url} did not answer within 0.3 s")


def test_a_job_of_a_sweep_is_named_by_its_overrides_and_grouped_by_its_sweep(tmp_path: Path) -> None:
    from finetune.logger.run_name import run_name

    job = tmp_path / "2026-11-21" / "04-17-37" / "optimizer.lr=0.01,seed=1"
    job.mkdir(parents=True)
    assert run_name(job) == ("04-17-37/optimizer.lr=0.01,seed=1", None)
    (job.parent / "multirun.yaml").touch()
    assert run_name(job) == ("optimizer.lr=0.01,seed=1", "2026-11-21/04-17-37")
