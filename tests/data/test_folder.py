"""Layouts that are recognised, mistakes named in the user's words, and the class contract between the splits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finetune.data.folder import FolderData, problems
from finetune.data.table import Table
from finetune.errors import ConfigError, DataError
from finetune.metrics import classification


def load(root: Path, **keys: object) -> Table:
    return FolderData(0, path=str(root), **keys).load()  # type: ignore[arg-type]


def names(table: Table, split: str) -> set[str]:
    return {table.relative(row) for row in table.rows(split)}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"), (20, 20, 20)),
        (("train/cat", "train/dog", "val/cat", "val/dog"), (20, 20, 0)),
        (("Training/cat", "Training/dog", "Validation/cat", "Validation/dog"), (20, 20, 0)),
        (("train/cat", "train/dog", "test/cat", "test/dog"), (16, 4, 20)),
        (("train/cat", "train/dog"), (16, 4, 0)),
        (("cat", "dog"), (16, 4, 0)),
        (("test", "control"), (16, 4, 0)),
    ],
)
def test_layouts(image_folder: Callable[..., Path], folders: tuple[str, ...], splits: tuple[int, ...]) -> None:
    root = image_folder(classes=folders, n=10, size=(8, 8))
    table = load(root)
    assert tuple(len(table.rows(split)) for split in ("train", "val", "test")) == splits
    assert table.classes == tuple(sorted({Path(folder).name for folder in folders}))
    for row in range(len(table)):
        assert table.classes[table.targets[row]] in table.relative(row).split("/")
        assert table.path(row).is_file()


def test_a_test_fraction_and_a_fold_are_cut_from_train_only(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("train/cat", "train/dog", "val/cat", "val/dog"), n=10, size=(8, 8))
    assert [len(load(root, test_fraction=0.3).rows(split)) for split in ("train", "val", "test")] == [14, 20, 6]
    with pytest.raises(DataError, match=r"data\.fold"):
        load(root, fold=0, folds=5)


def test_folds_hold_every_image_once(image_folder: Callable[..., Path]) -> None:
    root = image_folder(n=7, size=(8, 8))
    validated = [name for fold in range(3) for name in names(load(root, fold=fold, folds=3), "val")]
    assert sorted(validated) == sorted(names(load(root), "all"))


def test_nested_folders_belong_to_the_top_folder_or_on_request_to_the_leaf(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("pets/cat", "pets/dog", "farm/cow", "farm/pig"), n=4, size=(8, 8))
    top = load(root)
    assert top.classes == ("farm", "pets")
    assert "top folder is the class" in top.source.warnings[0]
    leaf = load(root, class_from="leaf")
    assert leaf.classes == ("cat", "cow", "dog", "pig")
    assert leaf.counts("all").tolist() == [4, 4, 4, 4]


def test_what_makes_a_folder_unusable_is_said_exactly(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.jpg").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("path,label\n")
    one = image_folder("one", classes=("cats",), n=2, size=(8, 8))
    hollow = image_folder("hollow", classes=("cats", "dogs"), n=2, size=(8, 8))
    (hollow / "fish").mkdir()
    (hollow / "fish" / "readme.txt").write_text("later")
    (hollow / "ape").mkdir()
    expected = "a folder with one subfolder of images per class, or train/ and val/ folders of them"
    for path, message in {
        tmp_path / "non": f"does not exist; did you mean {tmp_path / 'one'}?",
        tmp_path / "zzzzzz": f"does not exist; expected {expected}",
        tmp_path / "empty": f"is an empty folder; expected {expected}",
        tmp_path / "loose": "has 0 class folders; a classifier needs at least 2",
        tmp_path / "labels.csv": f"is a file; expected {expected} (labels in a CSV file: data=csv"
        f" data.file={tmp_path / 'labels.csv'} data.path=IMAGES)",
        one: "has 1 class folder ('cats'); a classifier needs at least 2",
    }.items():
        assert problems(str(path)) == [f"data.path={path} {message}"]
        with pytest.raises(DataError) as caught:
            load(path)
        assert str(caught.value) == f"data.path={path} {message}"
        assert caught.value.exit_code == 2
    assert problems(str(hollow)) == [
        f"data.path={hollow}: no images in class folder 'ape', 'fish'; add some or remove the folder"
    ]


def test_several_problems_are_reported_at_once(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("train/cat", "train/dog", "val/cat", "val/zebra", "test/Dog"), n=2, size=(8, 8))
    (root / "train" / "eel").mkdir()
    found = problems(str(root))
    assert len(found) == 3
    assert "no images in class folder 'eel'" in found[0]
    assert "val has class 'zebra', which train does not have" in found[1]
    assert "test has class 'Dog', which train does not have ('Dog' differs from 'dog' only in its spelling)" in found[2]
    with pytest.raises(DataError, match="3 problems"):
        load(root)


def test_the_quick_look_imports_neither_numpy_nor_torch(image_folder: Callable[..., Path]) -> None:
    root = image_folder(n=2, size=(8, 8))
    code = (
        "import sys; from finetune.data.folder import problems;"
        f" assert problems({str(root)!r}) == []; assert not {{'numpy', 'torch', 'PIL'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_values_out_of_range_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        FolderData(0, path="x", val_fraction=0.6, test_fraction=0.5, batch_size=0, fold=5, folds=5, split_by="regex:(")
    for words in (
        "data.batch_size=0 is too small",
        "data.val_fraction + data.test_fraction = 1.1",
        "data.fold=5; expected 0 to 4",
        "data.split_by=regex:(: not a regular expression",
    ):
        assert words in str(caught.value)


def test_a_regular_expression_or_the_parent_folder_keeps_groups_together(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("a/p1", "a/p2", "a/p3", "b/p1", "b/p4", "b/p5"), n=6, size=(8, 8))
    for folder in root.glob("*/*"):
        for image in folder.iterdir():
            image.rename(image.with_name(f"{folder.name}_{image.name}"))
    by_name = load(root, split_by="regex:^(p[0-9]+)_", val_fraction=0.4)
    sides: dict[str, set[int]] = {}
    for row in range(len(by_name)):
        sides.setdefault(by_name.path(row).name.split("_")[0], set()).add(int(by_name.split[row]))
    assert all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {0, 1}
    by_folder = load(root, split_by="folder", val_fraction=0.4)
    folders = [by_folder.path(row).parent for row in range(len(by_folder))]
    assert all(len({int(by_folder.split[row]) for row in range(36) if folders[row] == one}) == 1 for one in folders)
    with pytest.raises(DataError, match="matches nothing in 36 of 36 file names"):
        load(root, split_by="regex:^patient")
    with pytest.raises(DataError, match=r"leaves nothing to validate with: 36 images are in 1 group"):
        load(root, split_by="regex:^(p)")


def test_identical_files_are_never_divided(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("a", "b"), n=30, size=(8, 8))
    for label in ("a", "b"):
        for number in range(30):
            original = root / label / f"{number:03d}.png"
            (root / label / f"copy_{number:03d}.png").write_bytes(original.read_bytes())
    table = load(root, val_fraction=0.3, test_fraction=0.2)
    side = {table.relative(row): int(table.split[row]) for row in range(len(table))}
    assert all(side[f"{label}/{n:03d}.png"] == side[f"{label}/copy_{n:03d}.png"] for label in "ab" for n in range(30))
    assert np.bincount(table.split).tolist() == [60, 36, 24]


def test_a_split_file_replays_exactly_and_its_disagreements_are_named(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = image_folder(n=6, size=(8, 8))
    first = load(root, val_fraction=0.5)
    first.write_csv(tmp_path / "split.csv")
    (root / "amber" / "new.png").write_bytes((root / "amber" / "000.png").read_bytes())
    again = load(root, split_file=str(tmp_path / "split.csv"))
    assert again.names == first.names
    assert (again.split == first.split).all()
    assert "1 image(s) are not in data.split_file" in again.source.warnings[-1]
    (root / "amber" / "000.png").unlink()
    (root / "blue" / "001.png").rename(root / "coral" / "999.png")
    with pytest.raises(DataError) as caught:
        load(root, split_file=str(tmp_path / "split.csv"))
    assert "line 2: 'amber/000.png' is not in" in str(caught.value)
    assert "'blue/001.png' is not in" in str(caught.value)


def test_links_and_loops_list_every_image_once_at_its_real_place(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("a", "b"), n=3, size=(8, 8))
    (root / "a" / "again").symlink_to(root / "b")
    (root / "b" / "up").symlink_to(root)
    outside = image_folder("elsewhere", classes=("c",), n=2, size=(8, 8))
    (root / "c").symlink_to(outside / "c")
    table = load(root)
    assert table.counts("all").tolist() == [3, 3, 2]
    assert len(names(table, "all")) == 8


def oracle_metrics(table: Table, wrong: set[str]) -> dict[str, float]:
    """Metrics on val of a model that answers with train's number of the folder's name, and errs on ``wrong`` names."""
    rows = table.rows("val")
    truth = [table.relative(int(row)).split("/")[1] for row in rows]
    numbers = {name: number for number, name in enumerate(table.classes)}
    answers = [
        (numbers[name] + 1) % len(numbers) if table.relative(int(row)) in wrong else numbers[name]
        for row, name in zip(rows, truth, strict=True)
    ]
    counts = classification.count(table.targets[rows], np.array(answers), len(table.classes))
    return classification.averages(counts)


@pytest.mark.parametrize("case", ["missing", "extra", "renamed", "empty", "cased", "reordered"])
def test_class_contract(image_folder: Callable[..., Path], case: str) -> None:
    """Train has ant, bee, cat with 4 images each; val has 4 each of what the case says; one val image is misjudged."""
    val = {"missing": "ant cat", "extra": "ant bee cat dog", "renamed": "ant bees cat", "empty": "ant cat",
           "cased": "ant Bee cat", "reordered": "cat bee ant"}[case].split()  # fmt: skip
    root = image_folder(classes=tuple(f"train/{name}" for name in ("ant", "bee", "cat")), n=4, size=(8, 8))
    for name in val:  # written in this order, so that the disk may list them so
        image_folder(classes=(f"val/{name}",), n=4, size=(8, 8), seed=len(name))
    if case == "empty":
        (root / "val" / "bee").mkdir()
    if case in ("extra", "renamed", "cased"):
        named = {"extra": "'dog'", "renamed": "'bees'", "cased": "'Bee'"}[case]
        with pytest.raises(DataError, match=f"val has class {named}, which train does not have"):
            load(root)
        return
    table = load(root)
    assert table.classes == ("ant", "bee", "cat")
    got = oracle_metrics(table, {"val/cat/000.png"})
    if case == "reordered":  # by hand: 11 of 12; recalls 1, 1, 3/4
        assert got["accuracy"] == pytest.approx(11 / 12)
        assert got["balanced_accuracy"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    else:  # by hand: 7 of 8; recalls of the two classes that occur, 1 and 3/4
        assert table.targets[table.rows("val")].tolist() == [0] * 4 + [2] * 4
        assert got["accuracy"] == pytest.approx(7 / 8)
        assert got["balanced_accuracy"] == pytest.approx((1 + 3 / 4) / 2)
        assert "val has no images of 'bee'" in table.source.warnings[0]


def test_a_models_class_list_holds_for_a_folder_without_train(image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("test/cat", "test/ant"), n=3, size=(8, 8))
    table = FolderData(0, path=str(root)).load(classes=("ant", "bee", "cat"))
    assert table.counts("test").tolist() == [3, 0, 3]
    with pytest.raises(DataError, match="'cat', which"):
        FolderData(0, path=str(root)).load(classes=("ant", "bee"))
    with pytest.raises(DataError, match="has test/ but no train/"):
        load(root)


@pytest.mark.slow
def test_a_hundred_thousand_files_are_listed_without_an_object_each(tmp_path: Path) -> None:
    for label in ("a", "b"):
        folder = tmp_path / label
        folder.mkdir()
        for number in range(50_000):
            os.close(os.open(folder / f"{number:06d}.jpg", os.O_CREAT | os.O_WRONLY))
    table = load(tmp_path)
    assert len(table) == 100_000
    assert abs(len(table.rows("val")) - 20_000) <= 2000
    arrays = (table.ends, table.targets, table.split, table.sizes, table.modified_ns)
    assert (len(table.names) + sum(array.nbytes for array in arrays)) / len(table) < 60
