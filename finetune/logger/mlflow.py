"""MLflow: one run per training in a store that needs no server, or in the one that ``MLFLOW_TRACKING_URI`` names.

Use it where MLflow is the house's tracker. The embedded store is one SQLite file for all runs started in a folder;
``mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`` shows it. Needs ``pip install 'finetune[mlflow]'`` and takes
some seconds at the start. The run's id is in ``mlflow_run_id`` before the first step; a resumed run goes on under it
and does not log a step twice.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from finetune import redact
from finetune.errors import ConfigError
from finetune.logger.flatten import flatten
from finetune.logger.guard import Guard
from finetune.logger.run_name import run_name

ID_FILE = "mlflow_run_id"
DEFAULT_STORE = Path("runs") / "mlflow.db"
_ENDS = {"completed": "FINISHED", "interrupted": "KILLED"}
_PARAM_MAX_CHARACTERS = 500
_PARAMS_PER_CALL = 100


class MLflowLogger(Logger):
    """An MLflow run that belongs to ``run_directory``; its parameters are ``config``, flattened, without secrets."""

    def __init__(
        self,
        run_directory: Path,
        config: dict[str, Any],
        *,
        experiment: str = "finetune",
        tracking_uri: str | None = None,
        run_name: str | None = None,
        log_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if importlib.util.find_spec("mlflow") is None:
            raise ConfigError("logger=mlflow needs a package: pip install 'finetune[mlflow]'")
        self._directory = Path(run_directory).absolute()
        self._config = config
        self._experiment_name = experiment
        self._uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_STORE.absolute()}"
        self._run_name = run_name
        self._log_checkpoint = log_checkpoint
        self._client: Any = None
        self._run_id = ""
        self._logged_before: dict[str, int] = {}
        self._guard = Guard("MLflow")

    @property
    def name(self) -> str:
        """The experiment."""
        return self._experiment_name

    @property
    def version(self) -> str:
        """The run's id; empty before the first step."""
        return self._run_id

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client; the run is made, or found again, on first use."""
        if self._client is None:
            self._client = self._start()
        return self._client

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the whole configuration is logged when the run is made."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log at ``step``; what the run logged before it was resumed is not logged twice."""
        self._guard.send(lambda: self._log(metrics, step or 0))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the run open: Lightning calls this after every fit, validate and test."""

    @rank_zero_only
    def finish(self, status: str) -> None:
        """Keep the run's small files with it, and close it as finished, failed or killed."""
        if self._client is not None:
            self._guard.send(lambda: self._finish(status))

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        import time

        from mlflow.entities import Metric

        client, now_ms = self.experiment, int(time.time() * 1000)
        entries = [
            Metric(key, float(value), now_ms, step)
            for key, value in metrics.items()
            if step > self._logged_before.get(key, -1)
        ]
        client.log_batch(self._run_id, metrics=entries)

    def _finish(self, status: str) -> None:
        names = ["split.csv", "config.yaml", "metrics.csv", "result.json", "report.html"]
        names += ["checkpoints/best.ckpt"] if self._log_checkpoint else []
        for path in (self._directory / name for name in names):
            if path.exists():
                self._client.log_artifact(self._run_id, str(path))
        self._client.set_terminated(self._run_id, _ENDS.get(status, "FAILED"))

    def _start(self) -> Any:
        # MLflow's own defaults retry an unreachable server for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.tracking import MlflowClient

        with _one_at_a_time(self._uri):  # two jobs of a sweep must not both create the tables
            client = MlflowClient(self._uri)
            found = client.get_experiment_by_name(self._experiment_name)
            experiment_id = found.experiment_id if found else self._create_experiment(client)
        id_path = self._directory / ID_FILE
        if id_path.exists():
            self._run_id = id_path.read_text(encoding="utf-8").strip()
            client.update_run(self._run_id, "RUNNING")
            for key in client.get_run(self._run_id).data.metrics:
                self._logged_before[key] = max(metric.step for metric in client.get_metric_history(self._run_id, key))
            return client
        default_name, group = run_name(self._directory)
        tags = {"sweep": group} if group else {}
        self._run_id = client.create_run(experiment_id, run_name=self._run_name or default_name, tags=tags).info.run_id
        id_path.write_text(f"{self._run_id}\n", encoding="utf-8")
        self._log_parameters(client)
        return client

    def _create_experiment(self, client: Any) -> str:
        """A local store keeps its files beside its database, not in whatever folder is current."""
        location = None
        if self._uri.startswith("sqlite:///"):
            location = (Path(self._uri.removeprefix("sqlite:///")).parent / "mlflow_artifacts").as_uri()
        return str(client.create_experiment(self._experiment_name, artifact_location=location))

    def _log_parameters(self, client: Any) -> None:
        from mlflow.entities import Param

        flat = redact.redact(flatten(self._config), redact.secret_values(os.environ))
        params = [Param(key, str(value)[:_PARAM_MAX_CHARACTERS]) for key, value in flat.items()]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            client.log_batch(self._run_id, params=params[start : start + _PARAMS_PER_CALL])


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Hold a lock beside a SQLite store; other stores have their own."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
