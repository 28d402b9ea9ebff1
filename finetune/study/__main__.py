"""``python -m finetune.study RUNS [OUTPUT]``: tables on the screen, pictures into OUTPUT (by default into RUNS)."""

from __future__ import annotations

import sys
from pathlib import Path

from finetune.cli import report
from finetune.errors import ConfigError
from finetune.study import draw


def main(arguments: list[str]) -> int:
    """Exit code 2 when the folder holds no runs of a study."""
    if not 1 <= len(arguments) <= 2:
        return report(ConfigError("usage: python -m finetune.study RUNS [OUTPUT]"))
    runs, output = Path(arguments[0]), Path(arguments[-1])
    table = draw(runs, output)
    if not table:
        return report(
            ConfigError(f"{runs} holds no runs of experiment=depth_study or experiment=families; train them first")
        )
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
