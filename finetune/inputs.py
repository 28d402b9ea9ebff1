"""What ``input=`` means: an image, a folder, a glob, or a list of them, as a sorted list of files."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from finetune.data.listing import Listing, walk
from finetune.errors import DataError, combine


def files_of(inputs: str | Sequence[str]) -> list[str]:
    """Every file once, in path order, named as the user can open it.

    Raises:
        DataError: something is not there, or holds no image; every such input is listed.
    """
    found: set[str] = set()
    problems: list[DataError] = []
    for text in [inputs] if isinstance(inputs, str) else inputs:
        try:
            found.update(_files(str(text)))
        except DataError as error:
            problems.append(error)
    if problems:
        raise combine(problems)
    if not found:
        raise DataError("input is an empty list; expected an image, a folder or a glob")
    return sorted(found)


def _files(text: str) -> list[str]:
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(text, path)
    if path.exists() or os.path.lexists(path):
        return [str(path)]
    if glob.has_magic(text):
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        matched = [name for name in names if not Path(name).is_dir()]
        if not matched:
            raise DataError(f"input={text} matches no file; ** goes through folders, the shell needs quotes")
        return matched
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"did you mean {path.parent / near[0]}?" if near else "expected an image, a folder or a glob"
    raise DataError(f"input={text} does not exist; {hint}")


def _folder(text: str, path: Path) -> list[str]:
    listing = Listing()
    walk(os.fsencode(path), b"", listing, set())
    names, start = [], 0
    for length in listing.lengths:
        names.append(str(path / os.fsdecode(bytes(listing.names[start : start + length]))))
        start += length
    if not names:
        seen = ", ".join(f"{count} {what}" for what, count in listing.ignored.items()) or "nothing"
        raise DataError(f"input={text} has no image in it (there is {seen})")
    return names
