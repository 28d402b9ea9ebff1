"""A data set as people keep it: folders of images, with or without train/ val/ test/ (``data=folder``).

Recognised: ``train/ val/ test/`` (or some of them, train among them) with a folder per class in each; or the class
folders alone, which are then split. The class list comes from train, sorted by name; a class elsewhere that train does
not have is an error, one that is missing elsewhere a warning. ``problems`` answers in milliseconds, without NumPy,
whether a folder can be used at all; ``FolderData.load`` lists it. Cost: about 10 microseconds an image.
"""
# ruff: noqa: PTH118
# Paths are bytes here, so that a name that is not UTF-8 stays what it is; Path knows no bytes.

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from finetune.data.listing import Listing, has_image, identity, subfolders, walk_all
from finetune.data.options import LoaderOptions, SplitOptions
from finetune.errors import DataError, combine

if TYPE_CHECKING:
    from finetune.data.table import Table

SPLIT_OF = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_EXPECTED = "a folder with one subfolder of images per class, or train/ and val/ folders of them"


class Layout(NamedTuple):
    """Where the class folders are: split -> (folder of the split relative to the root, names of its subfolders)."""

    splits: dict[str, tuple[bytes, list[bytes]]]
    beside: list[bytes]
    """Folders next to train/ that are no split."""

    @property
    def words(self) -> str:
        """For the report."""
        if list(self.splits) == ["all"]:
            return "class folders without splits"
        return ", ".join(f"{os.fsdecode(folder)}/" for folder, _ in self.splits.values()) + " with class folders"


def problems(path: str, *, class_from: Literal["top", "leaf"] = "top", needs_train: bool = True) -> list[str]:
    """Everything that makes a folder unusable and can be seen without listing it; empty when nothing does."""
    root = Path(path).expanduser()
    unusable = root_problem(path, root)
    if unusable:
        return [unusable]
    found = _layout(path, root, needs_train=needs_train)
    if isinstance(found, str):
        return [found]
    if class_from == "leaf":
        return []
    base = os.fsencode(root)
    return _class_problems(path, found, lambda folder: has_image(os.path.join(base, folder)))


class FolderData:
    """Keys of ``conf/data/folder.yaml``; ``load`` lists and splits."""

    def __init__(
        self,
        seed: int,
        *,
        path: str,
        class_from: Literal["top", "leaf"] = "top",
        image_size: int = 224,
        batch_size: int | Literal["auto"] = 32,
        num_workers: int | None = None,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        cache: Literal["none", "ram", "disk"] = "none",
        cache_gb: float = 4.0,
        max_bad_fraction: float = 0.01,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        split_by: str = "image",
        split_file: str | None = None,
        fold: int | None = None,
        folds: int | None = None,
    ) -> None:
        self.path = path
        self.class_from = class_from
        self.options = LoaderOptions(image_size, batch_size, num_workers, sampler, cache, cache_gb, max_bad_fraction)
        self.split = SplitOptions(seed, val_fraction, test_fraction, split_by, split_file, fold, folds)
        wrong = self.options.problems() + self.split.problems()
        if wrong:
            raise combine(wrong)

    def load(self, classes: Sequence[str] | None = None) -> Table:
        """List, label and split. ``classes``: the class list of a trained model, which then holds instead of train's.

        Raises ``DataError`` with every problem found.
        """
        from finetune.data.labelling import labelled
        from finetune.data.partition import partition

        root = Path(self.path).expanduser()
        unusable = root_problem(self.path, root)
        if unusable:
            raise DataError(unusable)
        layout = _layout(self.path, root, needs_train=classes is None)
        if isinstance(layout, str):
            raise DataError(layout)
        listing = Listing()
        base = os.fsencode(root)
        # a link back to the root or to a split's folder must not list everything again as one class
        seen = {identity(os.path.join(base, folder)) for folder, _ in (*layout.splits.values(), (b"", []))}
        places = [os.path.join(folder, name) for folder, names in layout.splits.values() for name in names]
        walk_all(base, places, listing, seen)
        if classes is None and self.class_from == "top":
            depth = {folder.count(b"/") + 1 + bool(folder) for folder, _ in layout.splits.values()}.pop()
            filled = {b"/".join(folder.split(b"/")[:depth]) for folder, _ in listing.folders}
            wrong = _class_problems(self.path, layout, filled.__contains__)
            if wrong:
                raise combine([DataError(text) for text in wrong])
        table = labelled(self.path, root, layout, listing, class_from=self.class_from, classes=classes)
        return partition(table, self.split)


def root_problem(path: str, root: Path) -> str:
    """Why the root itself cannot be used; empty when it can."""
    if not root.exists():
        parent = root.parent if root.parent.is_dir() else None
        near = difflib.get_close_matches(root.name, [entry.name for entry in parent.iterdir()] if parent else [], n=1)
        hint = f"; did you mean {Path(path).parent / near[0]}?" if near else ""
        return f"data.path={path} does not exist{hint or f'; expected {_EXPECTED}'}"
    if not root.is_dir():
        hint = f" (labels in a CSV file: data=csv data.file={path} data.path=IMAGES)" if root.suffix == ".csv" else ""
        return f"data.path={path} is a file; expected {_EXPECTED}{hint}"
    try:
        has_entries = any(True for _ in root.iterdir())
    except OSError as error:
        return f"data.path={path} cannot be read ({error.strerror})"
    return "" if has_entries else f"data.path={path} is an empty folder; expected {_EXPECTED}"


def _layout(path: str, root: Path, *, needs_train: bool) -> Layout | str:
    """The recognised layout, or why there is none."""
    base = os.fsencode(root)
    names = subfolders(base)
    by_split: dict[str, list[bytes]] = {}
    for name in names:
        split = SPLIT_OF.get(os.fsdecode(name).casefold())
        if split:
            by_split.setdefault(split, []).append(name)
    beside = [name for name in names if os.fsdecode(name).casefold() not in SPLIT_OF]
    if "train" not in by_split and (beside or not by_split):  # 'test' beside 'control' is a class
        return Layout({"all": (b"", names)}, [])
    twice = [f"{' and '.join(os.fsdecode(name) for name in same)}" for same in by_split.values() if len(same) > 1]
    if twice:
        return f"data.path={path} has two folders for one split: {', '.join(twice)}; keep one of them"
    if "train" not in by_split and needs_train:
        present = ", ".join(f"{os.fsdecode(same[0])}/" for same in by_split.values())
        return f"data.path={path} has {present} but no train/; add it, or point data.path at one folder of classes"
    order = [split for split in ("train", "val", "test") if split in by_split]
    folders = {split: by_split[split][0] for split in order}
    return Layout({split: (name, subfolders(os.path.join(base, name))) for split, name in folders.items()}, beside)


def _class_problems(path: str, layout: Layout, has_images: Callable[[bytes], bool]) -> list[str]:
    """Too few classes, classes without images, classes that train does not have."""
    first, (folder, names) = next(iter(layout.splits.items()))
    where = os.path.join(path, os.fsdecode(folder)) if folder else path
    found = []
    if len(names) < 2:
        quoted = f" ({', '.join(repr(os.fsdecode(name)) for name in names)})" if names else ""
        s = "" if len(names) == 1 else "s"
        found.append(f"data.path={where} has {len(names)} class folder{s}{quoted}; a classifier needs at least 2")
    empty = [os.fsdecode(name) for name in names if not has_images(os.path.join(folder, name))]
    if empty and len(empty) == len(names):
        found.append(f"data.path={where} has no images in any of its {len(names)} class folder(s) ({_some(empty)})")
    elif empty:
        found.append(f"data.path={where}: no images in class folder {_some(empty)}; add some or remove the folder")
    for split, (other, others) in layout.splits.items():
        extra = [os.fsdecode(name) for name in others if name not in names and has_images(os.path.join(other, name))]
        if split != first and extra:
            found.append(extra_classes(path, os.fsdecode(other), extra, [os.fsdecode(name) for name in names]))
    return found


def extra_classes(
    path: str, where: str, extra: Sequence[str], classes: Sequence[str], *, key: str = "data.path"
) -> str:
    """The message for classes that the class list does not have; says when one only differs in case or accents."""
    import unicodedata

    def folded(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    alike = {folded(name): name for name in classes}
    pairs = [(name, alike[folded(name)]) for name in extra if folded(name) in alike]
    hints = [f"{name!r} differs from {known!r} only in its spelling" for name, known in pairs]
    hint = f" ({'; '.join(hints)})" if hints else ""
    known = f"the {len(classes)} classes are {_some(classes)}"
    return f"{key}={path}: {where} has class {_some(extra)}, which train does not have{hint}; {known}"


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
