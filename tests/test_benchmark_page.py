"""docs/benchmark.md from rows, its figures worked out by hand."""

from __future__ import annotations

from typing import Any

from bench.accuracy.table import page


def row(contestant: str, seed: int, accuracy: float, processor_seconds: float) -> dict[str, Any]:
    return {
        "set": "digits-5",
        "seed": seed,
        "contestant": contestant,
        "test_accuracy": accuracy,
        "processor_seconds": processor_seconds,
        "command": f"python -m {contestant} {seed}",
    }


def test_means_errors_claims_and_commands() -> None:
    ours = [row("finetune", 1, 0.7, 10.0), row("finetune", 2, 0.8, 30.0)]  # .75; deviation .0707, by root of two: .05
    fastai = [row("fastai", 1, 0.77, 50.0), row("fastai", 2, 0.77, 30.0)]  # above ours by .02: within the error of .05
    logistic = [row("logistic", 1, 0.6, 5.0)]
    text = page([*ours, *fastai, *logistic], ["digits-5", "digits-10"])
    assert (
        "| digits-5 | 0.750 ± 0.050, 20 s (2) | not run | 0.600, 5 s (1) | not run | 0.770 ± 0.000, 40 s (2) |"
        " not run | not run |" in text
    )
    assert "| digits-10 |" + " not run |" * 7 in text
    assert (
        "- digits-5: above logistic (+0.150); below, within one standard error fastai (-0.020); 0.50 of fastai's time."
        in text
    )
    assert "- Together (digits-5): 20 s, 0.50 of fastai's 40 s." in text
    assert "\n    python -m finetune 1\n    python -m logistic 1\n    python -m fastai 1\n" in text


def test_more_than_one_standard_error_below_is_said_loudly() -> None:
    text = page([row("finetune", 1, 0.5, 1.0), row("timm", 1, 0.6, 1.0)], ["digits-5"])
    assert "BELOW timm (-0.100)" in text
