"""``input=``: files, folders and globs, each image once and in path order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune.errors import DataError
from finetune.inputs import files_of


def relative(paths: list[str], root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


def test_a_folder_gives_all_its_images_in_path_order_and_nothing_else(photographs: Path) -> None:
    (photographs / "notes.txt").write_text("no image")
    found = relative(files_of(str(photographs)), photographs)
    assert found == sorted(found)
    assert len(found) == 12


def test_a_glob_a_file_and_a_folder_may_overlap(photographs: Path) -> None:
    single = str(photographs / "a" / "01.png")
    found = files_of([str(photographs / "a"), single, str(photographs / "**" / "0[13].png")])
    assert relative(found, photographs) == [f"a/{number:02d}.png" for number in (1, 3, 5, 7, 9, 11)]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    odd = tmp_path / "cat[1].png"
    odd.write_bytes(b"x")
    (tmp_path / "cat1.png").write_bytes(b"x")
    assert files_of(str(odd)) == [str(odd)]


def test_a_single_file_is_taken_at_its_word_even_if_it_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "odd.txt").write_text("no image")
    assert files_of(str(tmp_path / "odd.txt")) == [str(tmp_path / "odd.txt")]


def test_every_wrong_input_is_named(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    wrong = [str(photographs / "a" / "02.png"), str(tmp_path / "empty"), str(photographs / "*.bmp")]
    with pytest.raises(DataError) as caught:
        files_of(wrong)
    message = str(caught.value)
    assert "02.png does not exist; did you mean" in message
    assert "has no image in it" in message
    assert "*.bmp matches no file" in message
    with pytest.raises(DataError, match="empty list"):
        files_of([])
