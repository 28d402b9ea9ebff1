"""``compile=true`` beside the same run without it: the same training within rounding, the same names in every file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from finetune.build import network_from_checkpoint
from finetune.checkpoint import read_checkpoint
from tests.engine.conftest import Moment, assert_equal, assert_same_run, interrupted_run, train

TWO_PHASES = (
    "freeze=gradual",
    "freeze.phases=[{train:[head],epochs:1},{train:[head,'@-1'],batch_norm:live}]",
    "transform=none",
    "cache=none",
    "callback=ema",
    "optimizer.lr=0.001",
    "trainer.max_epochs=3",
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])


@pytest.mark.slow
def test_compiled_steps_train_the_same_network_through_phases_an_average_and_a_resume(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="finetune")
    overrides = (f"data.path={images}", *TWO_PHASES)
    train(tmp_path / "plain", *overrides)
    train(tmp_path / "compiled", *overrides, "compile=true")
    assert "compile   training steps, once for each of 2 phases" in caplog.text
    assert "compile   failed" not in caplog.text
    plain, compiled = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=5e-3, atol=2e-4, msg=name)
    assert any(not torch.equal(compiled[name], value) for name, value in plain.items()), "was it compiled at all?"
    network_from_checkpoint(read_checkpoint(tmp_path / "compiled" / "checkpoints" / "best.ckpt"))

    interrupted_run(tmp_path / "resumed", Moment(1, 2), *overrides, "compile=true")
    assert_same_run(tmp_path / "compiled", tmp_path / "resumed")


def test_without_a_compiler_the_run_is_that_without_the_option(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    overrides = (f"data.path={images}", *TWO_PHASES, "trainer.max_epochs=2")
    train(tmp_path / "plain", *overrides)
    with fresh_cache(), config.patch({"cpp.cxx": ("no-such-compiler",)}):
        train(tmp_path / "failed", *overrides, "compile=true")
    said = [record.getMessage() for record in caplog.records if "compile   failed" in record.getMessage()]
    assert len(said) == 1
    assert_equal(weights(tmp_path / "plain"), weights(tmp_path / "failed"), "weights")
