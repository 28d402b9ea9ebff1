"""Which pictures the page shows, and why some are missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetune.errors import ConfigError
from finetune.report import selection
from finetune.report.label_errors import label_errors
from finetune.report.subject import Subject


@dataclass(frozen=True)
class Galleries:
    """Rows to show, in order; ``notes`` says why something is missing."""

    mistakes: list[int]
    uncertain: list[int]
    best: dict[str, list[int]]
    suspects: list[int]
    notes: dict[str, str]

    def rows(self) -> Iterator[int]:
        """Every row once, the most important first."""
        best = (row for rows in self.best.values() for row in rows)
        yield from dict.fromkeys([*self.mistakes, *self.uncertain, *self.suspects, *best])


def choose(subject: Subject, size: int, *, seek_label_errors: bool) -> Galleries:
    """``size`` pictures in each gallery, twice as many suspects, and the best of at most ``4 * size`` classes."""
    predictions, notes = subject.predictions, dict[str, str]()
    suspects: list[int] = []
    if not seek_label_errors:
        notes["suspects"] = "Not looked for (report.label_errors=false)."
    elif subject.trained_on:
        notes["suspects"] = "Not looked for: the model was trained on these images, so it agrees with their labels."
    else:
        try:
            suspects = label_errors(predictions)
        except ConfigError as error:
            notes["suspects"] = str(error)
    each = max(1, min(4, 2 * size // max(1, len(predictions.classes))))
    best = selection.best_of_each_class(predictions, each)
    if len(best) > 4 * size:
        notes["best"] = f"The first {4 * size} of {len(best)} classes."
    return Galleries(
        selection.confident_mistakes(predictions, size),
        selection.least_certain(predictions, size),
        dict(list(best.items())[: 4 * size]),
        suspects[: 2 * size],
        notes,
    )
