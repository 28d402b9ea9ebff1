"""Labels from a CSV file: one or several per image, splits, groups, and every wrong row named by its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finetune.data.csv import CsvData
from finetune.data.table import Table
from finetune.errors import DataError


@pytest.fixture
def images(image_folder: Callable[..., Path]) -> Path:
    return image_folder(classes=("x", "y"), n=10, size=(8, 8))


def load(images: Path, text: str, tmp_path: Path, **keys: object) -> Table:
    file = tmp_path / "labels.csv"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return CsvData(0, path=str(images), file=str(file), **keys).load()  # type: ignore[arg-type]


def rows(*columns: str, label: Callable[[int], str] = lambda n: "ab"[n % 2]) -> str:
    lines = [f"{folder}/{n:03d}.png,{label(n)}" for folder in ("x", "y") for n in range(10)]
    return "\n".join([",".join(("path", "label", *columns)), *lines]) + "\n"


def test_classes_come_from_the_file_and_not_from_the_folders(images: Path, tmp_path: Path) -> None:
    table = load(images, rows(), tmp_path)
    assert table.classes == ("a", "b")
    assert table.counts("all").tolist() == [10, 10]
    assert [len(table.rows(split)) for split in ("train", "val", "test")] == [16, 4, 0]
    for row in range(20):
        assert table.label(row) == "ab"[int(table.path(row).stem) % 2]


def test_the_order_of_rows_a_byte_order_mark_and_other_delimiters_make_no_difference(
    images: Path, tmp_path: Path
) -> None:
    plain = load(images, rows(), tmp_path)
    head, *body = rows().splitlines()
    backwards = load(images, "\ufeff" + "\r\n".join([head, *reversed(body)]), tmp_path)
    tabs = load(images, rows().replace(",", "\t").replace("path\tlabel", "file\tkind"), tmp_path,
                delimiter="\t", path_column="file", label_column="kind")  # fmt: skip
    for other in (backwards, tabs):
        assert other.names == plain.names
        assert (other.targets == plain.targets).all()
        assert (other.split == plain.split).all()


def test_a_split_column_is_kept_and_what_it_leaves_open_is_cut_from_train(images: Path, tmp_path: Path) -> None:
    head, *body = rows("split").splitlines()
    lines = [f"{line},{'test' if '/00' in line and line.startswith('y') else 'Train'}" for line in body]
    table = load(images, "\n".join([head, *lines]), tmp_path)
    assert {table.relative(row)[0] for row in table.rows("test")} == {"y"}
    assert len(table.rows("test")) == 10
    assert len(table.rows("val")) == 2


@pytest.mark.parametrize("keys", [{}, {"split_by": "column:patient"}])
def test_a_group_column_keeps_its_images_in_one_split(images: Path, tmp_path: Path, keys: dict[str, str]) -> None:
    head, *body = rows("patient" if keys else "group").splitlines()
    lines = [f"{line},p{number // 4}" for number, line in enumerate(body)]
    table = load(images, "\n".join([head, *lines]), tmp_path, val_fraction=0.4, **keys)
    for group in range(5):
        own = [row for row in range(20) if row // 4 == group]
        assert len({int(table.split[row]) for row in own}) == 1
    assert 0 < len(table.rows("val")) < 20


def test_several_labels_per_image_or_none(images: Path, tmp_path: Path) -> None:
    text = rows(label=lambda n: ["sea", "sea|sky", "", " sky | sea |sun"][n % 4])
    table = load(images, text, tmp_path, multilabel=True)
    assert table.task == "multilabel"
    assert table.classes == ("sea", "sky", "sun")
    assert table.targets.dtype == np.float32
    for row in range(20):
        expected = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]][int(table.path(row).stem) % 4]
        assert table.targets[row].tolist() == expected
    assert table.counts("all").tolist() == [16, 10, 4]
    table.write_csv(tmp_path / "split.csv")
    again = load(images, text, tmp_path, multilabel=True, split_file=str(tmp_path / "split.csv"))
    assert (again.targets == table.targets).all()
    assert (again.split == table.split).all()


def test_every_wrong_row_is_named_by_its_line(images: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    (images / "way_out").symlink_to(tmp_path)
    (images / "x" / "link.png").symlink_to(tmp_path / "secret.png")
    rows_of_file = (
        "path,label,split",
        "x/000.png,a,train",
        "x/001.png,,train",
        "../secret.png,a,train",
        "/etc/hostname,a,train",
        "way_out/secret.png,a,train",
        "x/link.png,a,train",
        "x/gone.png,a,train",
        "x\\002.png,a,train",
        "x/000.png,b,train",
        "x/003.png,a,holdout",
        "x/004.png,a",
        "x,a,train",
        ",a,train",
        "x/005.png,b,",
    )
    text = "\n".join(rows_of_file)
    with pytest.raises(DataError) as caught:
        load(images, text, tmp_path)
    message = str(caught.value)
    for line, words in {
        3: "no label",
        4: "leaves data.path",
        5: "leaves data.path",
        6: "leads out of data.path by a link",
        7: "leads out of data.path by a link",
        8: "No such file",
        9: "paths use / here",
        10: "'x/000.png' stands in line 2 already",
        11: "split 'holdout'; expected train, val or test",
        12: "has 2 values, the first line 3",
        13: "is no file",
        14: "no path",
    }.items():
        assert any(f"line {line}:" in part and words in part for part in message.splitlines()), (line, message)
    assert "line 15: no split, which other rows have" in message


def test_a_file_that_is_no_table_of_labels_is_said_to_be_none(images: Path, tmp_path: Path) -> None:
    for text, words in {
        "": "has no column 'path' and 'label'; its first line has nothing",
        "image,kind\nx/000.png,a\n": "has no column 'path' and 'label'; its first line has 'image', 'kind'",
        "path,label\n": "has no rows",
        "path,label\nx/000.png,a\n": "has 1 class",
        "p\0a\0t\0h\0": "NUL bytes",
        'path,label\n"x/000.png,a\n': "no CSV",
    }.items():
        with pytest.raises(DataError, match=words):
            load(images, text, tmp_path)
    with pytest.raises(DataError, match=r"data\.file=nowhere\.csv cannot be read"):
        CsvData(0, path=str(images), file="nowhere.csv").load()
    with pytest.raises(DataError, match=r"split_by=column:patient: data\.file=.* has columns 'path', 'label'"):
        load(images, rows(), tmp_path, split_by="column:patient")


def test_a_class_that_train_lacks_is_an_error_and_one_that_val_lacks_a_warning(images: Path, tmp_path: Path) -> None:
    head, *body = rows("split").splitlines()
    lines = [f"{line},{'val' if line.startswith('y') else 'train'}" for line in body]
    lines[-1] = "y/009.png,c,val"
    with pytest.raises(DataError, match="split val has class 'c', which train does not have"):
        load(images, "\n".join([head, *lines]), tmp_path)
    one_sided = [line for line in lines[:-1] if not (line.endswith(",val") and ",a," in line)]
    table = load(images, "\n".join([head, *one_sided]), tmp_path)
    assert "split val has no images of 'a'" in table.source.warnings[0]
    assert table.counts("val").tolist() == [0, 4]
