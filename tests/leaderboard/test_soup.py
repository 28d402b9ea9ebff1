"""The greedy soup: what is averaged, what is kept, and what may not be mixed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from finetune.checkpoint import Checkpoint
from finetune.errors import ConfigError
from finetune.leaderboard.runs import Run
from finetune.leaderboard.soup import average, check_compatible, greedy
from finetune.preprocessing import Preprocessing


def _checkpoint(name: str, weight: float, **fields: object) -> Checkpoint:
    plain = Checkpoint(
        path=Path(name) / "checkpoints" / "best.ckpt",
        state_dict={"head.weight": torch.tensor([weight]), "bn.num_batches_tracked": torch.tensor(7)},
        task="multiclass",
        classes=("a", "b"),
        preprocessing=Preprocessing(),
        config={},
        backbone={},
        metrics={},
        temperature=1.0,
        thresholds=None,
        versions={},
        monitor={},
    )
    return dataclasses.replace(plain, **fields)  # type: ignore[arg-type]


def _near_two(state: dict[str, torch.Tensor]) -> dict[str, float]:
    """A validation whose optimum is the weight 2."""
    return {"accuracy": 1.0 - abs(float(state["head.weight"]) - 2.0)}


def _run(folder: Path, name: str, split: str = "path,label,split,sha256\na.png,a,val,0\n") -> Run:
    (folder / name).mkdir()
    (folder / name / "split.csv").write_text(split)
    return Run(folder / name, "completed", {}, {}, "val/accuracy", 0.5, {}, 1.0, "")


def test_weights_are_averaged_and_counters_are_not() -> None:
    states = [_checkpoint("x", weight).state_dict for weight in (1.0, 2.0, 6.0)]
    mixed = average(states)
    assert mixed["head.weight"].item() == 3.0
    assert mixed["head.weight"].dtype == torch.float32
    assert mixed["bn.num_batches_tracked"].item() == 7


def test_an_ingredient_stays_only_if_the_average_is_not_worse() -> None:
    # 1.8 alone: 0.8; with 2.3 the mean is 2.05: 0.95, kept; with -4 it is 0.03: not kept; with 1.9 it is 2.0: kept
    candidates = [_checkpoint(name, weight) for name, weight in (("a", 1.8), ("b", 2.3), ("c", -4.0), ("d", 1.9))]
    soup = greedy(candidates, _near_two, "accuracy", higher_is_better=True)
    assert [path.parts[0] for path in soup.ingredients] == ["a", "b", "d"]
    assert (soup.best, soup.value) == (pytest.approx(0.8), pytest.approx(1.0))
    assert soup.state_dict["head.weight"].item() == pytest.approx(2.0)


def test_a_loss_is_mixed_downwards() -> None:
    def loss(state: dict[str, torch.Tensor]) -> dict[str, float]:
        return {"loss": abs(float(state["head.weight"]) - 2.0)}

    candidates = [_checkpoint("a", 1.8), _checkpoint("b", 5.0), _checkpoint("c", 2.2)]
    soup = greedy(candidates, loss, "loss", higher_is_better=False)
    assert [path.parts[0] for path in soup.ingredients] == ["a", "c"]


def test_runs_that_do_not_fit_together_are_named_with_the_reason(tmp_path: Path) -> None:
    runs = [_run(tmp_path, name) for name in ("first", "classes", "network", "images")]
    runs.append(_run(tmp_path, "split", "path,label,split,sha256\na.png,a,train,0\n"))
    wide = {"head.weight": torch.zeros(2), "bn.num_batches_tracked": torch.tensor(7)}
    checkpoints = [
        _checkpoint("first", 1.0),
        _checkpoint("classes", 1.0, classes=("b", "a")),
        _checkpoint("network", 1.0, state_dict=wide),
        _checkpoint("images", 1.0, preprocessing=Preprocessing(size=(64, 64))),
        _checkpoint("split", 1.0),
    ]
    expected = (
        f"soup=greedy: 4 of 5 runs do not fit {tmp_path}/first:\n"
        f"  {tmp_path}/classes has other classes\n"
        f"  {tmp_path}/network is another network (1 tensors differ)\n"
        f"  {tmp_path}/images sees images of another size or normalisation\n"
        f"  {tmp_path}/split was trained on other images; give every run the same data.split_file="
    )
    with pytest.raises(ConfigError, match=re.escape(expected)):
        check_compatible(runs, checkpoints)


def test_one_run_makes_no_soup(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="soup=greedy mixes at least two finished runs; there is 1"):
        check_compatible([_run(tmp_path, "only")], [_checkpoint("only", 1.0)])
