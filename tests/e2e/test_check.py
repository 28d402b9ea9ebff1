"""``python -m finetune.check`` as a user runs it: exit codes, both reports, and a page that stands alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def check(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetune.check", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=300, env=dict(os.environ),
    )  # fmt: skip


def test_a_clean_folder_leaves_two_reports_and_a_second_check_remembers(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = image_folder(n=10, size=(64, 72), suffix=".jpg")
    (root / "amber" / "notes.txt").write_text("hello")
    (root / "blue" / "broken.jpg").write_bytes(b"<html>")
    done = check(f"data.path={root}", f"hydra.run.dir={tmp_path / 'out'}", "data.image_size=32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "images    24 train, 6 val" in done.stdout
    assert "1 file(s) cannot be read and are not used" in done.stdout
    report = json.loads((tmp_path / "out" / "data_report.json").read_text(encoding="utf-8"))
    assert report["splits"]["train"] == {"amber": 8, "blue": 8, "coral": 8}
    assert report["unreadable"] == [
        {"path": "blue/broken.jpg", "reason": "its content is no image format that is read here"}
    ]
    assert report["ignored"] == {"files that are no images (.txt)": 1}
    page = (tmp_path / "out" / "data_report.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert page.count("data:image/jpeg;base64,") >= 18 + 1  # six examples a class, and the augmented batch
    for words in ("A training batch", "broken.jpg", "Examples", "amber", "</svg>"):
        assert words in page
    again = check(f"data.path={root}", f"hydra.run.dir={tmp_path / 'again'}", "data.image_size=32", cwd=tmp_path)
    assert "(31 verdicts remembered)" in again.stdout
    assert (tmp_path / "again" / "data_report.html").stat().st_size > 10_000


def test_findings_that_training_would_refuse_exit_with_1_and_wrong_input_with_2(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = image_folder(classes=("a", "b"), n=3, size=(32, 32))
    for file in (root / "b").iterdir():
        file.write_bytes(b"no image")
    refused = check(f"data.path={root}", f"hydra.run.dir={tmp_path / 'out'}", cwd=tmp_path)
    assert refused.returncode == 1
    assert "training would refuse this data set" in refused.stderr
    assert "'b'" in refused.stderr
    assert (tmp_path / "out" / "data_report.json").exists()
    wrong = check(f"data.path={root / 'none'}", "data.val_fraction=2", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "does not exist" in wrong.stderr
    assert "Traceback" not in wrong.stderr + refused.stderr


def test_several_labels_per_image_from_a_csv_file(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = image_folder(classes=("x",), n=12, size=(32, 32))
    lines = [f"x/{number:03d}.png,{'ab'[number % 2]}{'|c' * (number % 3 == 0)}" for number in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    done = check(
        "data=csv", "data.file=labels.csv", f"data.path={root}", "data.multilabel=true",
        f"hydra.run.dir={tmp_path / 'out'}", "data.image_size=32", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "data_report.json").read_text(encoding="utf-8"))
    assert report["classes"] == ["a", "b", "c"]
    assert report["task"] == "multilabel"
