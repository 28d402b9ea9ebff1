"""The TensorBoard logger, read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.logger.tensorboard import TensorBoardLogger


def _read(run_directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run_directory / "tensorboard"))
    reader.Reload()
    return reader


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorBoard's own imports
def test_a_resumed_run_reads_back_as_one_with_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "canary-0123456789")
    config = {"optimizer": {"lr": 0.01}, "note": "canary-0123456789"}
    first = TensorBoardLogger(tmp_path, config)
    for step in range(5):
        first.log_metrics({"train/loss": 10.0 + step}, step=step)
    first.finish("interrupted")
    resumed = TensorBoardLogger(tmp_path, config)
    for step in range(3, 7):
        resumed.log_metrics({"train/loss": 20.0 + step}, step=step)
    resumed.finish("completed")
    reader = _read(tmp_path)
    found = [(event.step, event.value) for event in reader.Scalars("train/loss")]
    assert found == [(0, 10.0), (1, 11.0), (2, 12.0), (3, 23.0), (4, 24.0), (5, 25.0), (6, 26.0)]
    text = reader.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| optimizer.lr | 0.01 |" in text
    assert all(b"canary" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
