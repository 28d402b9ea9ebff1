"""What can go wrong, in the user's words.

Every error that a user can cause is a ``FinetuneError``; the command line prints its message without a traceback and
leaves with its ``exit_code``: 2 when the input is wrong, 1 when the work itself failed. A message says what was wrong,
what was got, what was expected and what to type next.
"""

from __future__ import annotations

from collections.abc import Sequence


class FinetuneError(Exception):
    """Anything that ends a command with a message instead of a traceback."""

    exit_code = 1


class ConfigError(FinetuneError):
    """A key, a value or a choice on the command line or in a YAML file is wrong."""

    exit_code = 2


class DataError(FinetuneError):
    """The data set cannot be used as it is."""

    exit_code = 2


class ImageError(DataError):
    """One image cannot be read; ``path`` is the file, ``reason`` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Keep both fields when a worker process raises."""
        return type(self), (self.path, self.reason)


class WeightsError(FinetuneError):
    """Pretrained weights cannot be found, fetched or fitted into the network."""

    exit_code = 2


class CheckpointError(FinetuneError):
    """A checkpoint or an exported artefact is missing, damaged or of another kind."""

    exit_code = 2


class ExportError(FinetuneError):
    """An artefact could not be written, or does not behave as the model did."""


class TrainingError(FinetuneError):
    """The training itself went wrong: numbers that are not finite, memory or disk exhausted."""


class Interrupted(BaseException):
    """A signal asked the command to leave; what there was to save is saved. The exit code is 128 + the signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by signal {signal_number}")
        self.exit_code = 128 + signal_number


def combine(problems: Sequence[FinetuneError]) -> FinetuneError:
    """One error for several problems, so that a user sees all of them at once; the class of the first one."""
    if len(problems) == 1:
        return problems[0]
    lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, start=1))
    first = problems[0]
    kind = type(first) if type(first) is not ImageError else DataError
    return kind(f"{len(problems)} problems:\n{lines}")
