"""The checkpoint file: a changed byte is noticed wherever it is, and the newest whole file is found by its step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.checkpoint import newest_whole, read_payload, seal, sweep_litter, write_checkpoint
from finetune.errors import CheckpointError, TrainingError

NAMES = ("last.ckpt", "previous.ckpt")


def write(path: Path, step: int) -> Path:
    write_checkpoint({"state_dict": {"w": torch.arange(64.0) + step}, "global_step": step}, path)
    return path


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sealed") / "one.ckpt", 1)


@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed(data: st.DataObject, sealed: Path) -> None:
    content = bytearray(sealed.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changed = sealed.with_name("changed.ckpt")
    changed.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"changed\.ckpt"):
        read_payload(changed)


@given(data=st.data())
def test_a_file_cut_short_or_grown_is_noticed(data: st.DataObject, sealed: Path) -> None:
    content = sealed.read_bytes()
    changed = sealed.with_name("cut.ckpt")
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    changed.write_bytes(data.draw(st.sampled_from([cut, content + b"x", b"x" + content])))
    with pytest.raises(CheckpointError, match=r"cut\.ckpt"):
        read_payload(changed)


def test_plain_torch_opens_a_sealed_file(sealed: Path) -> None:
    assert torch.load(sealed, weights_only=True)["global_step"] == 1


def test_a_file_that_would_execute_something_is_refused_though_its_seal_is_right(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"state_dict": {}, "harm": Harmful()}, tmp_path / "plain.pt")
    (tmp_path / "sealed.ckpt").write_bytes(seal((tmp_path / "plain.pt").read_bytes()))
    with pytest.raises(CheckpointError, match="no checkpoint of tensors and plain data"):
        read_payload(tmp_path / "sealed.ckpt")
    assert not (tmp_path / "executed").exists()


def test_the_newest_is_that_of_the_highest_step_whatever_the_clock_says(tmp_path: Path) -> None:
    write(tmp_path / "last.ckpt", 20)
    older = write(tmp_path / "previous.ckpt", 10)
    os.utime(older, (4e9, 4e9))
    assert newest_whole(tmp_path, NAMES) == (tmp_path / "last.ckpt", [])
    write(tmp_path / "previous.ckpt", 30)
    assert newest_whole(tmp_path, NAMES)[0] == tmp_path / "previous.ckpt"


def test_a_damaged_newest_is_passed_over_with_its_name(tmp_path: Path) -> None:
    newest = write(tmp_path / "last.ckpt", 20)
    previous = write(tmp_path / "previous.ckpt", 10)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    found, passed_over = newest_whole(tmp_path, NAMES)
    assert found == previous
    assert len(passed_over) == 1
    assert "last.ckpt was damaged" in passed_over[0]


def test_a_save_keeps_what_stood_there(tmp_path: Path) -> None:
    write(tmp_path / "last.ckpt", 1)
    write_checkpoint({"state_dict": {}, "global_step": 2}, tmp_path / "last.ckpt", keep=tmp_path / "previous.ckpt")
    assert [read_payload(tmp_path / name)["global_step"] for name in NAMES] == [2, 1]


def test_a_save_that_fails_leaves_the_old_files_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "last.ckpt", 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*resume=auto"):
        write_checkpoint({"state_dict": {}, "global_step": 2}, tmp_path / "last.ckpt", keep=tmp_path / "previous.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert read_payload(tmp_path / "last.ckpt")["global_step"] == 1


def test_litter_of_a_killed_save_is_swept(tmp_path: Path) -> None:
    write(tmp_path / "last.ckpt", 1)
    (tmp_path / "last.ckpt.part").write_bytes(b"half")
    sweep_litter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
