"""The studies read runs as they lie on disk: numbers worked by hand, pictures written, other runs left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from finetune.study import draw
from finetune.study.__main__ import main
from finetune.study.families import images_per_s


def write_run(folder: Path, backbone: dict[str, object], losses: list[float], accuracy: float | None) -> None:
    """A run directory with what the studies read."""
    folder.mkdir(parents=True)
    config = {"backbone": backbone, "data": {"path": "x", "image_size": 32}, "seed": 42}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = {"status": "failed"}
    if accuracy is not None:
        result = {"status": "completed", "test": {"accuracy": accuracy}, "seconds": {"fit": 4.0}}
    (folder / "result.json").write_text(json.dumps(result))
    rows = "".join(f"{epoch},{loss}\n" for epoch, loss in enumerate(losses))
    (folder / "metrics.csv").write_text(f"epoch,train/loss\n{rows}")
    (folder / "split.csv").write_text("path,label,split,sha256\n" + "a,b,train,\n" * 6 + "c,b,val,\n" * 2)


def plain(shortcut: str, **other: object) -> dict[str, object]:
    return {
        "name": "plain18",
        "shortcut": shortcut,
        "batch_norm": True,
        "initialisation": "paper",
        "weights": "none",
    } | other


def test_the_depth_table_holds_the_first_step_s_ratio_and_the_last_epoch_s_loss(tmp_path):
    write_run(tmp_path / "runs" / "a", plain("none"), [2.0, 1.5], 0.25)
    write_run(tmp_path / "runs" / "b", plain("add"), [2.0, 0.5], None)
    head = "epoch,step,conv1,layer1.0.conv1,layer1.0.downsample.0,layer4.1.conv2,head.linear"
    (tmp_path / "runs" / "a" / "gradient_flow.csv").write_text(f"{head}\n0,0,8,4,99,2,77\n0,1,6,4,99,3,77\n")
    table = draw(tmp_path / "runs", tmp_path / "out").splitlines()
    assert table[2] == "| residual 18 | BatchNorm | paper | - | 0.50 | failed |"
    assert table[3] == "| plain 18 | BatchNorm | paper | 4 | 1.50 | 0.25 |"
    for name in ("gradient_by_depth.png", "loss_by_depth.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_a_branch_that_starts_at_zero_has_no_ratio(tmp_path):
    write_run(tmp_path / "runs" / "a", plain("add", initialisation="timm"), [2.0], 0.25)
    flow = "epoch,step,conv1,layer1.0.conv1\n0,0,8,0\n0,1,6,3\n"
    (tmp_path / "runs" / "a" / "gradient_flow.csv").write_text(flow)
    table = draw(tmp_path / "runs", tmp_path / "out").splitlines()
    assert table[2] == "| residual 18 | BatchNorm | timm | - | 2.00 | 0.25 |"


def test_the_family_table_is_ordered_by_accuracy_and_times_each_network(tmp_path):
    write_run(tmp_path / "runs" / "a", {"name": "test_resnet", "weights": "none"}, [2.0, 1.0], 0.5)
    write_run(tmp_path / "runs" / "b", {"name": "test_vit", "weights": "pretrained"}, [2.0, 1.0], 0.75)
    table = draw(tmp_path / "runs", tmp_path / "out").splitlines()
    assert [line.split(" | ")[:3] for line in table[2:]] == [
        ["| test_vit", "pretrained", "0.75"],
        ["| test_resnet", "scratch", "0.50"],
    ]
    assert all(float(line.split(" | ")[-1].removesuffix(" |")) > 0 for line in table[2:])
    assert (tmp_path / "out" / "families.png").exists()


def test_runs_of_something_else_are_left_alone(tmp_path, capsys):
    write_run(tmp_path / "runs" / "a", {"name": "resnet18", "weights": "none"}, [2.0], 0.5)
    assert draw(tmp_path / "runs", tmp_path / "out") == ""
    assert not (tmp_path / "out").exists()
    assert main([str(tmp_path / "runs")]) == 2
    assert "holds no runs of experiment=depth_study or experiment=families" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"]])
def test_the_command_says_how_it_is_called(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: python -m finetune.study RUNS [OUTPUT]" in capsys.readouterr().err


def test_the_speed_of_a_family_is_the_median_of_turns_that_alternate(monkeypatch):
    """A clock on which the first network's passes take 2 s, the second's 4 s, and one turn a hundred."""
    turns = [(2.0, 4.0), (2.0, 4.0), (100.0, 100.0), (2.0, 4.0)]  # the first only warms up
    instants, now = [], 0.0
    for seconds in (seconds for turn in turns for seconds in turn):
        instants += [now, now + seconds]
        now += seconds
    monkeypatch.setattr("finetune.study.families.time.perf_counter", iter(instants).__next__)
    assert images_per_s(["test_resnet", "test_vit"], 32, batch_size=8, rounds=3) == [4.0, 2.0]
