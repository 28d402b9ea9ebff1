"""The rows of the benchmark as docs/benchmark.md: means, standard errors, seconds, and what they say of the claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

CONTESTANTS = ("finetune", "finetune-fast", "logistic", "logistic-all", "fastai", "timm", "resnet50-scratch")
_OPENING = """# Benchmark

Made by `make benchmark`; every figure is of a run that was made, and a place without a run says so. EfficientNet-Lite0 with
its packaged ImageNet weights, in the last column ResNet-50 without any. Accuracy on the test images, mean over seeds and its
standard error, and mean processor seconds of the whole command (one thread and the decoding workers; nothing stored by
earlier runs). A seed draws the images, the fifth of them that validates, and all of the run's randomness; every contestant
gets the same images. The number in a set's name is images a class, validation included. In brackets: how many seeds were
run; with one there is no standard error.

| contestant | what it is |
|---|---|
| finetune | `python -m finetune.train data.path=NAME backbone=efficientnet_lite0`, nothing else said |
| finetune-fast | the same with `recipe=fast` |
| logistic | scikit-learn's logistic regression on frozen features, strength by cross-validation |
| logistic-all | the same, learning from the validation images too |
| fastai | `fine_tune` with its defaults: one epoch frozen, the rest unfrozen, as many epochs in all as finetune |
| timm | a plain loop: AdamW, cosine, warm-up, label smoothing, random resized crops; the same epochs |
| resnet50-scratch | `... backbone=resnet50_from_scratch backbone.weights=none`, nothing else said: what the weights are worth |

"""


class Cell(NamedTuple):
    """Mean accuracy, its standard error over seeds (0 with one), mean processor seconds, and how many runs."""

    mean: float
    error: float
    processor_s: float
    runs: int


def page(rows: Sequence[dict[str, Any]], sets: Sequence[str]) -> str:
    """The whole document."""
    cells = {
        (name, contestant): found
        for name in sets
        for contestant in CONTESTANTS
        if (found := _cell([row for row in rows if (row["set"], row["contestant"]) == (name, contestant)]))
    }
    lines = ["| set | " + " | ".join(CONTESTANTS) + " |", "|---" * (len(CONTESTANTS) + 1) + "|"]
    for name in sets:
        shown = [_shown(cells.get((name, contestant))) for contestant in CONTESTANTS]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    claims = [_claim(name, cells) for name in sets] + [_total(sets, cells)]
    parts = [*lines, "", "## What it says", "", *filter(None, claims), "", _commands(rows)]
    return _OPENING + "\n".join(parts)


def _cell(rows: Sequence[dict[str, Any]]) -> Cell | None:
    if not rows:
        return None
    values = [row["test_accuracy"] for row in rows]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1))
    return Cell(
        mean, spread / math.sqrt(len(values)), sum(row["processor_seconds"] for row in rows) / len(rows), len(rows)
    )


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "not run"
    error = f" ± {cell.error:.3f}" if cell.runs > 1 else ""
    return f"{cell.mean:.3f}{error}, {cell.processor_s:.0f} s ({cell.runs})"


def _total(sets: Sequence[str], cells: dict[tuple[str, str], Cell]) -> str:
    """The default's time over all sets that fastai was run on too."""
    both = [name for name in sets if (name, "finetune") in cells and (name, "fastai") in cells]
    if not both:
        return ""
    ours, theirs = (sum(cells[name, contestant].processor_s for name in both) for contestant in ("finetune", "fastai"))
    return f"- Together ({', '.join(both)}): {ours:.0f} s, {ours / theirs:.2f} of fastai's {theirs:.0f} s."


def _commands(rows: Sequence[dict[str, Any]]) -> str:
    """One command of each contestant, as it was run."""
    first = {row["contestant"]: row["command"] for row in reversed(rows)}
    lines = [f"    {first[contestant]}" for contestant in CONTESTANTS if contestant in first]
    return "\n".join(
        ["## Commands", "", "One of each, with `OMP_NUM_THREADS=1`; a row's file holds its own.", "", *lines, ""]
    )


def _claim(name: str, cells: dict[tuple[str, str], Cell]) -> str:
    """How the default stands to each rival, in units of the standard error of their difference."""
    ours = cells.get((name, "finetune"))
    if ours is None:
        return ""
    words = []
    for rival in ("logistic", "logistic-all", "fastai", "timm"):
        cell = cells.get((name, rival))
        if cell is None:
            continue
        gap, error = ours.mean - cell.mean, math.hypot(ours.error, cell.error)
        verdict = (
            "above"
            if gap > 0
            else "level"
            if gap == 0
            else "below, within one standard error"
            if -gap <= error
            else "BELOW"
        )
        words.append(f"{verdict} {rival} ({gap:+.3f})")
        if rival == "fastai":
            words.append(f"{ours.processor_s / cell.processor_s:.2f} of fastai's time")
    return f"- {name}: {'; '.join(words)}." if words else ""
