"""The MLflow logger, read back with MLflow's own client."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.logger.mlflow import ID_FILE, MLflowLogger

pytestmark = [
    pytest.mark.slow,  # MLflow takes ten seconds to import and to create its tables
    pytest.mark.filterwarnings("ignore"),  # MLflow's and alembic's own
]


def test_a_resumed_run_reads_back_as_one_with_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MY_TOKEN", "canary-0123456789")
    run_directory = tmp_path / "runs" / "2026-11-21" / "one"
    run_directory.mkdir(parents=True)
    (run_directory / "split.csv").write_text("path,label,split,sha256\n")
    config = {"optimizer": {"lr": 0.01}, "note": "canary-0123456789"}
    first = MLflowLogger(run_directory, config)
    for step in range(5):
        first.log_metrics({"train/loss": 10.0 + step}, step=step)
    first.finish("interrupted")
    resumed = MLflowLogger(run_directory, config)
    for step in range(3, 7):
        resumed.log_metrics({"train/loss": 10.0 + step}, step=step)
    resumed.finish("completed")

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'finetune'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == (run_directory / ID_FILE).read_text().strip()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "2026-11-21/one")
    assert run.data.params == {"optimizer.lr": "0.01", "note": "***"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, 10.0 + step) for step in range(7)]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["split.csv"]


def test_an_unreachable_server_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    logger = MLflowLogger(tmp_path, {}, tracking_uri="http://127.0.0.1:9")
    logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.finish("completed")
    assert "MLflow: tracking stops here, the training goes on" in caplog.text
