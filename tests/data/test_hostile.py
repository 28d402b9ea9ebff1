"""A folder of everything that breaks image loaders: each file is used or named with a reason; nothing is touched."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from finetune.data.examine import examine
from finetune.data.folder import FolderData
from finetune.data.image import decode
from finetune.errors import ImageError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, write_hostile: Callable, photograph: Callable) -> tuple:
    root = tmp_path_factory.mktemp("hostile")
    (root / "odd").mkdir()
    (root / "plain").mkdir()
    expected = write_hostile(root / "odd")
    for seed in range(6):
        Image.fromarray(photograph(seed, height=64, width=80)).save(root / "plain" / f"{seed}.png")
    return root, expected


def fingerprint(root: Path) -> str:
    """Names, kinds, sizes, times and contents of a whole tree."""
    digest = hashlib.sha256()
    for folder, names, files in os.walk(os.fsencode(root)):
        for name in sorted(names + files):
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            digest.update(name + repr((status.st_mode, status.st_size, status.st_mtime_ns)).encode())
            if stat.S_ISREG(status.st_mode):
                digest.update(Path(os.fsdecode(os.path.join(folder, name))).read_bytes())  # noqa: PTH118
    return digest.hexdigest()


def test_the_corpus_holds_at_least_55_kinds(corpus: tuple) -> None:
    assert len(corpus[1]) >= 55


def test_every_file_gets_the_verdict_that_a_person_would_give(corpus: tuple) -> None:
    root, expected = corpus
    before = fingerprint(root)
    table = FolderData(0, path=str(root)).load()
    report = examine(table, progress=False)
    assert fingerprint(root) == before
    rows = {table.name(row).partition(b"/")[2]: row for row in range(len(table)) if table.name(row).startswith(b"odd/")}
    wrong = []
    for name, verdict in expected.items():
        kind, _, words = verdict.partition(": ")
        row = rows.get(name)
        got = "ignored"
        if row is not None:
            got = f"unreadable: {report.unreadable[row]}" if row in report.unreadable else "ok"
            got = f"suspect: {report.suspect[row]}" if row in report.suspect else got
        if not got.startswith(kind) or words not in got:
            wrong.append((name, verdict, got))
    assert wrong == []
    assert set(rows) <= set(expected)
    assert sum(table.source.ignored.values()) == sum(verdict == "ignored" for verdict in expected.values())
    assert len(report.clean()) == len(table) - len(report.unreadable)


def test_names_that_are_not_utf8_reach_every_report(corpus: tuple, tmp_path: Path) -> None:
    table = FolderData(0, path=str(corpus[0])).load()
    report = examine(table, progress=False)
    text = json.dumps(report.to_dict(), ensure_ascii=False)
    text.encode("utf-8")
    table.write_csv(tmp_path / "split.csv")
    assert b"odd/not-utf8-\xff\xfe.jpg" in (tmp_path / "split.csv").read_bytes()
    again = FolderData(0, path=str(corpus[0]), split_file=str(tmp_path / "split.csv")).load()
    assert again.names == table.names
    assert (again.split == table.split).all()


def mutated(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One of six kinds of damage somewhere in the file."""
    kind = ("cut", "flip", "zero", "noise", "delete", "insert")[int(rng.integers(6))]
    body = bytearray(data)
    place = int(rng.integers(2, len(body) - 66))
    if kind == "cut":
        del body[len(body) - int(rng.integers(2, len(body) - 2)) :]
    elif kind == "flip":
        for spot in rng.integers(2, len(body), 10):
            body[spot] ^= 1 << int(rng.integers(8))
    elif kind == "zero":
        body[place : place + 64] = bytes(64)
    elif kind == "noise":
        body[place : place + 64] = rng.bytes(64)
    elif kind == "delete":
        del body[place : place + 64]
    else:
        body[place:place] = rng.bytes(64)
    return kind, bytes(body)


@pytest.mark.slow
def test_500_mutations_of_good_images_kill_no_process(tmp_path: Path, photograph: Callable) -> None:
    rng = np.random.default_rng(7)
    kinds = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000")
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    for number in range(500):
        kind = kinds[number % len(kinds)]
        file = tmp_path / "ab"[number % 2] / f"{number}.{kind.lower()}.jpg"
        Image.fromarray(photograph(number % 40, height=96, width=128)).save(file, kind)
        file.write_bytes(mutated(file.read_bytes(), rng)[1])
    report = examine(FolderData(0, path=str(tmp_path)).load(), progress=False)
    assert len(report.table) == 500
    assert not [reason for reason in report.unreadable.values() if "crashes" in reason or "takes more" in reason]


def flagged(data: bytes) -> bool:
    try:
        return bool(decode(data, min_size_px=32).damage)
    except ImageError:
        return True


@pytest.mark.slow
def test_cut_jpegs_are_all_flagged_damaged_scans_mostly_and_clean_ones_never(photograph: Callable) -> None:
    rng = np.random.default_rng(11)
    clean = [
        simplejpeg.encode_jpeg(photograph(seed, height=120, width=160), quality=int(rng.integers(50, 98)))
        for seed in range(1000)
    ]
    assert not any(map(flagged, clean))
    assert all(flagged(data[: len(data) - int(rng.integers(2, len(data) - 2))]) for data in clean)
    caught = 0
    for data in clean:
        body = bytearray(data)
        start = body.index(b"\xff\xda") + 14
        place = int(rng.integers(start, len(body) - 66))
        damage = int(rng.integers(4))
        if damage == 0:
            for spot in rng.integers(start, len(body) - 2, 10):
                body[spot] ^= 1 << int(rng.integers(8))
        elif damage == 1:
            body[place : place + 64] = rng.bytes(64)
        elif damage == 2:
            del body[place : place + 64]
        else:
            body[place:place] = rng.bytes(64)
        caught += flagged(bytes(body))
    assert caught >= 800


def test_a_decoder_that_dies_or_hangs_costs_one_verdict(
    tmp_path: Path, photograph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examining process is replaced by one whose decoder crashes, waits and computes for ever on command."""
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(photograph(number)).save(tmp_path / "set" / label / f"{number}.webp")
    (tmp_path / "set" / "a" / "2.webp").write_bytes(b"CRASH")
    (tmp_path / "set" / "b" / "3.webp").write_bytes(b"HANG")
    (tmp_path / "set" / "b" / "4.webp").write_bytes(b"BUSY")
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, time\n"
        "import finetune.data.image as image\n"
        "real = image.read_bytes\n"
        "def read_bytes(path):\n"
        "    data = real(path)\n"
        "    if data == b'CRASH': os.kill(os.getpid(), 11)\n"
        "    if data == b'HANG': time.sleep(600)\n"
        "    while data == b'BUSY': pass\n"
        "    return data\n"
        "image.read_bytes = read_bytes\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hook))
    monkeypatch.setattr("finetune.data.examiners.FILE_WAIT_S", 20.0)
    report = examine(FolderData(0, path=str(tmp_path / "set")).load(), workers=2, progress=False)
    reasons = {report.table.relative(row): reason for row, reason in report.unreadable.items()}
    assert set(reasons) == {"a/2.webp", "b/3.webp", "b/4.webp"}
    assert "crashes the decoder" in reasons["a/2.webp"]
    assert "takes more than 20 s" in reasons["b/3.webp"]
    assert reasons["b/4.webp"] == "reading it takes more than 5 s of processor time"


class Run(NamedTuple):
    """A command that has ended: what it said, and what it took with all of its processes."""

    code: int
    said: str
    processor_s: float
    peak_mib: float
    """Of its largest process."""


def command(environment: dict[str, str], *words: str) -> Run:
    """``python -m words...``, measured."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(process.returncode, said, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


@pytest.mark.slow
@pytest.mark.e2e
def test_check_and_an_epoch_of_training_get_through_the_corpus(corpus: tuple, tmp_path: Path) -> None:
    """60 processor seconds for both commands, at most 1 GB above what six ordinary pictures take."""
    root, expected = corpus
    harmless = tmp_path / "harmless"
    for name in ("one", "two"):
        shutil.copytree(root / "plain", harmless / name)
    before = fingerprint(root)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "XDG_CACHE_HOME": str(tmp_path)}
    options = ("backbone.name=test_resnet.r160_in1k", "backbone.weights=none", "data.image_size=32", "trainer=cpu",
               "trainer.max_epochs=1", "logger=csv", "report=none", "data.max_bad_fraction=0.9")  # fmt: skip

    def check(folder: Path, out: str) -> Run:
        return command(environment, "finetune.check", f"data.path={folder}", f"hydra.run.dir={tmp_path / out}")

    def train(folder: Path, out: str) -> Run:
        return command(environment, "finetune.train", f"data.path={folder}", f"hydra.run.dir={tmp_path / out}", *options)

    base = check(harmless, "base check"), train(harmless, "base run")
    found = check(root, "check"), train(root, "run")
    assert [run.code for run in (*base, *found)] == [0] * 4, [run.said[-2000:] for run in (*base, *found)]
    assert not any("Traceback" in run.said for run in found)
    report = json.loads((tmp_path / "check" / "data_report.json").read_text(encoding="utf-8"))
    assert report["num_unreadable"] == sum(verdict.startswith("unreadable") for verdict in expected.values())
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["status"] == "completed"
    assert fingerprint(root) == before
    taken = sum(run.processor_s for run in found)
    above = [run.peak_mib - of_base.peak_mib for run, of_base in zip(found, base, strict=True)]
    print(f"{taken:.0f} s of processor, {above[0]:.0f} and {above[1]:.0f} MiB above the baseline")
    assert taken <= 60
    assert max(above) * 2**20 <= 1e9


def test_random_bytes_in_many_files_never_raise_anything_but_an_image_error(tmp_path: Path) -> None:
    generator = random.Random(5)
    heads = [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\0",
        b"BM",
        b"RIFF\0\0\0\0WEBP",
        b"P6 9 9 255\n",
        b"qoif",
    ]
    refused = 0
    for number in range(200):
        data = heads[number % len(heads)] + generator.randbytes(generator.randrange(1, 400))
        try:
            decode(data, max_pixels=1_000_000)
        except ImageError:
            refused += 1
    assert refused >= 190  # noise behind the head of a format is hardly ever a picture
