"""What the studies of docs/resnet.md draw from finished runs: ``draw(runs, output)`` picks what the runs allow.

    python -m finetune.study runs/depth_study docs/figures

``finetune.summarize`` calls the same function.
"""

from __future__ import annotations

from pathlib import Path


def draw(runs: Path, output: Path) -> str:
    """Draw into ``output`` what the runs below ``runs`` allow; gives the tables in Markdown, empty when neither fits.

    Runs of ``experiment=depth_study`` have a gradient_flow.csv and a ``backbone.shortcut``; ``experiment=families`` is
    any set of runs that differ in ``backbone.name`` alone.
    """
    from finetune.study import depth, families
    from finetune.study.runs import find

    found = find(runs)
    if depth.applies(found):
        return depth.draw(found, output)
    if families.applies(found):
        return families.draw(found, output)
    return ""
