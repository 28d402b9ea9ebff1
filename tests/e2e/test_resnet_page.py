"""docs/resnet.md: its tables are the networks' own, and every command on it runs, at a small size."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.study.stages import stages, table

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "resnet.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)\n```", PAGE, flags=re.DOTALL)
TINY = "trainer.max_epochs=1 data.image_size=32"
SMALL = {
    "finetune.train data": f"{TINY} logger=csv report=none",
    "experiment=depth_study": f"{TINY} backbone=plain18 backbone.batch_norm=true backbone.initialisation=paper",
    "experiment=families": f"{TINY} backbone.name=test_resnet,test_vit",
}


def test_the_page_s_tables_are_those_of_the_networks():
    assert table(50) in PAGE
    for depth in (18, 34, 101, 152):
        parameters = sum(stage.parameters for stage in stages(depth))
        gflops = sum(stage.flops for stage in stages(depth)) / 1e9
        assert re.search(rf"\| ResNet-{depth} \| {depth} \| [\d, ]+ \| {parameters:,} \| {gflops:.2f} \|", PAGE)


def test_the_page_s_pictures_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", PAGE)
    assert len(pictures) >= 2
    assert all((REPOSITORY / "docs" / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.slow
def test_every_command_on_the_page_runs(tmp_path):
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    assert len(COMMANDS) == 9
    printed = ""
    for command in COMMANDS:
        small = next((options for words, options in SMALL.items() if words in command), "")
        done = subprocess.run(
            ["bash", "-c", f"{command} {small}"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command} {small}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    for figure in ("depth_study/gradient_by_depth.png", "depth_study/loss_by_depth.png", "families/families.png"):
        assert (tmp_path / "runs" / figure).exists()
    assert "25,557,032" in printed
    assert re.search(r"china\.jpg +palace", printed)
    assert re.search(r"flower\.jpg +daisy", printed)
