"""``seconds.first_step`` against clocks that stand outside."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from finetune.callback.first_step import FirstStep
from finetune.model import ImageClassifier
from tests.engine.conftest import train


def test_the_age_of_a_process_is_what_its_parent_waited() -> None:
    program = "import time; time.sleep(0.3); from finetune.processes import age_s; print(age_s(), flush=True); input()"
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    age_s = float(process.stdout.readline())
    waited_s = time.monotonic() - started
    process.communicate("\n")
    assert 0.3 <= age_s <= waited_s + 0.02


def test_it_is_the_end_of_the_first_step_and_not_of_a_batch_without_one() -> None:
    callback, trainer = FirstStep(time.monotonic() - 5.0), cast("Any", SimpleNamespace(global_step=7))
    module = cast("Any", None)
    callback.on_train_start(trainer, module)
    callback.on_train_batch_end(trainer, module, None, module, 0)
    assert callback.seconds is None, "half of an accumulated step"
    trainer.global_step = 8
    callback.on_train_batch_end(trainer, module, None, module, 1)
    first = callback.seconds
    assert first == pytest.approx(5.0, abs=0.5)
    trainer.global_step = 9
    callback.on_train_batch_end(trainer, module, None, module, 2)
    assert callback.seconds == first


def test_a_run_says_when_its_first_step_was_done(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[float] = []
    plain = ImageClassifier.training_step

    def remember(self: Any, batch: Any, batch_idx: int) -> Any:
        began.append(time.monotonic())
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(ImageClassifier, "training_step", remember)
    started = time.monotonic()
    seconds = train(tmp_path / "run", f"data.path={images}", "freeze=none", "trainer.max_epochs=1")["seconds"]
    assert began[0] - started - 0.5 < seconds["first_step"] < began[1] - started
    assert seconds["total"] == pytest.approx(sum(seconds[name] for name in ("prepare", "fit", "evaluate")), abs=0.01)


def test_a_solved_head_takes_no_step(images: Path, tmp_path: Path) -> None:
    found = train(tmp_path / "run", f"data.path={images}", "freeze=head_only", "freeze.solve_head=true")
    assert "first_step" not in found["seconds"]
