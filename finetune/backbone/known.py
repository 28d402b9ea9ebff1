"""Which backbones there are, and what is wrong with a name or a weights file, without importing timm or torch.

timm's names are read from its source (about 0.1 s for a thousand of them), so that a misspelt name is refused at once,
together with everything else that is wrong with the command line.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

PLAIN = ("plain18", "plain34", "plain50", "plain101")
FROM_SCRATCH = tuple(f"resnet{depth}_from_scratch" for depth in (18, 34, 50, 101, 152))
_ENTRY_POINT = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
_OLD_NAMES = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\}\)", re.DOTALL)


def names() -> list[str]:
    """Every architecture that ``backbone.name`` takes, sorted: timm's and this package's own."""
    return sorted({*PLAIN, *FROM_SCRATCH, *(name for text in _sources() for name in _ENTRY_POINT.findall(text))})


def old_names() -> set[str]:
    """Names that timm still takes for another one, and warns about."""
    blocks = [block for text in _sources() for block in _OLD_NAMES.findall(text)]
    return {name for block in blocks for name in re.findall(r"'(\w[^']*)' *:", block)}


def name_problem(name: str) -> str:
    """Why ``backbone.name`` cannot be built, with the nearest names; empty when nothing is wrong with it."""
    architecture = name.partition(".")[0]
    known = names()
    if architecture in known or name in old_names():
        return ""
    near = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
    meant = f"did you mean {', '.join(near)}?" if near else "no name is near it."
    return (
        f"backbone.name={name} is not a network that timm knows; {meant} "
        f"timm.list_models('*{architecture[:6]}*') lists names ({len(known)} in all)"
    )


def _sources() -> Iterator[str]:
    spec = importlib.util.find_spec("timm")
    assert spec is not None, "it is a dependency"
    assert spec.origin is not None, "it is no namespace package"
    for file in sorted(Path(spec.origin).with_name("models").glob("*.py")):
        yield file.read_text(encoding="utf-8")


def weights_problem(weights: str) -> str:
    """Why ``backbone.weights`` can be nothing that is opened; empty when there may be something to open."""
    if weights in ("pretrained", "none") or weights.startswith("hf-hub:"):
        return ""
    path = Path(weights).expanduser()
    if not path.exists():
        return f"backbone.weights={weights} is not there; pretrained, none, hf-hub:ID or a file is expected"
    if path.is_dir():
        return f"backbone.weights={weights} is a folder; a .safetensors, .pth or .ckpt file is expected"
    return ""
