"""Whole runs whose head is solved: never below the probe on val, blind to test, exact after an interruption."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from finetune import choosing, probe
from finetune.errors import DataError
from tests.conftest import write_image_folder
from tests.engine.conftest import Moment, assert_equal, interrupted_run, train

SOLVED = ("freeze=lp_ft", "freeze.solve_head=true", "trainer.max_epochs=2", "transform=light")


@pytest.fixture(scope="module")
def split_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train, val and test of three classes."""
    folders = [f"{split}/{name}" for split in ("train", "val", "test") for name in ("amber", "blue", "coral")]
    return write_image_folder(tmp_path_factory.mktemp("solved") / "images", classes=folders, n=5, size=(40, 40))


def best_weights(directory: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(directory / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    return weights


def test_the_kept_weights_are_never_below_the_probe_and_choosing_is_blind_to_test(
    tmp_path: Path, split_images: Path
) -> None:
    result = train(tmp_path / "plain", f"data.path={split_images}", *SOLVED)
    values = [candidate["value"] for candidate in result["candidates"]]
    assert len(values) == 5
    assert result["monitor"]["value"] in values
    assert result["monitor"]["value"] >= values[0]
    assert result["val"]["balanced_accuracy"] == pytest.approx(result["monitor"]["value"])

    trapped = shutil.copytree(split_images, tmp_path / "trapped")  # every test label is wrong now
    (trapped / "test/amber").rename(trapped / "test/parked")
    (trapped / "test/blue").rename(trapped / "test/amber")
    (trapped / "test/coral").rename(trapped / "test/blue")
    (trapped / "test/parked").rename(trapped / "test/coral")
    other = train(tmp_path / "other", f"data.path={trapped}", *SOLVED)
    assert other["monitor"] == result["monitor"]
    assert_equal(best_weights(tmp_path / "plain"), best_weights(tmp_path / "other"), "best.ckpt")


def test_a_solved_head_alone_takes_no_epoch_and_leaves_the_backbone_as_it_was(
    tmp_path: Path, split_images: Path
) -> None:
    options = ("freeze=head_only", "freeze.solve_head=true", "trainer.max_epochs=3")
    result = train(tmp_path / "probe", f"data.path={split_images}", *options)
    assert result["monitor"]["epoch"] is None
    assert result["monitor"]["value"] > 0.6  # three hues: chance is a third
    probe = torch.load(tmp_path / "probe/checkpoints/probe.ckpt", weights_only=True)["state_dict"]
    assert_equal(best_weights(tmp_path / "probe"), probe, "the probe is what was kept")


def test_an_interrupted_run_keeps_its_probe_and_ends_as_the_uninterrupted_one(
    tmp_path: Path, split_images: Path
) -> None:
    train(tmp_path / "whole", f"data.path={split_images}", *SOLVED)
    interrupted_run(tmp_path / "stopped", Moment(1, 1), f"data.path={split_images}", *SOLVED)
    for name in ("best.ckpt", "probe.ckpt"):
        one, other = (
            torch.load(tmp_path / run / "checkpoints" / name, weights_only=True) for run in ("whole", "stopped")
        )
        assert_equal(one["state_dict"], other["state_dict"], name)


@pytest.mark.parametrize(
    ("coefficients", "options"),
    [
        ((0.0, 0.5), SOLVED),
        ((0.0,), SOLVED),
        ((0.0, 1.0), SOLVED),
        ((0.0,), ("freeze=head_only", "freeze.solve_head=true")),
    ],
    ids=["between", "probe", "tuned", "head_only"],
)
def test_a_run_that_has_ended_and_is_resumed_ends_in_the_same_model(
    tmp_path: Path,
    split_images: Path,
    monkeypatch: pytest.MonkeyPatch,
    coefficients: tuple[float, ...],
    options: tuple[str, ...],
) -> None:
    monkeypatch.setattr(choosing, "COEFFICIENTS", coefficients)
    overrides = (f"data.path={split_images}", *options, "monitor=val/loss", "optimizer.lr=0.003")
    ended = train(tmp_path / "run", *overrides)
    assert ended["monitor"]["coefficient"] == coefficients[-1]
    before = best_weights(tmp_path / "run")
    for directory, resume in (("run", "auto"), ("run", "auto"), ("other", tmp_path / "run/checkpoints/last.ckpt")):
        if resume != "auto" and not Path(resume).exists():
            break  # a solved head alone trains nothing that could be resumed
        resumed = train(tmp_path / directory, *overrides, f"resume={resume}")
        for key in ("monitor", "candidates", "kept", "val", "test"):
            assert resumed[key] == ended[key], key
        assert_equal(before, best_weights(tmp_path / directory), "best.ckpt")


def test_a_head_that_is_solved_from_the_store_in_pieces_is_the_head_solved_at_once(
    tmp_path: Path, split_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (f"data.path={split_images}", "freeze=head_only", "freeze.solve_head=true")
    train(tmp_path / "whole", *overrides)
    monkeypatch.setattr(probe, "_SMALL", 4)  # cross-validation too, on 12 of 15 images
    monkeypatch.setattr(probe, "_PIECE", 3)
    monkeypatch.setattr(probe, "_SHARDS", 2)
    train(tmp_path / "pieces", *overrides)
    whole, pieces = (best_weights(tmp_path / name)["network.head.linear.weight"] for name in ("whole", "pieces"))
    assert not torch.equal(whole, pieces)  # float32 was used
    torch.testing.assert_close(pieces, whole, rtol=0.01, atol=0.01 * float(whole.abs().max()))


def test_a_new_run_in_a_used_folder_is_the_run_in_a_fresh_one_and_keeps_the_old_weights_aside(
    tmp_path: Path, split_images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = ("freeze=lp_ft", "freeze.solve_head=true", "trainer.max_epochs=1", "transform=light", "seed=7")
    new = ("freeze=none", "trainer.max_epochs=1", "transform=light")
    train(tmp_path / "used", f"data.path={split_images}", *old)
    before = best_weights(tmp_path / "used")
    results = [train(tmp_path / name, f"data.path={split_images}", *new) for name in ("used", "fresh")]
    assert results[0]["candidates"] == results[1]["candidates"]
    assert_equal(best_weights(tmp_path / "fresh"), best_weights(tmp_path / "used"), "best.ckpt")
    assert_equal(
        before, torch.load(tmp_path / "used/checkpoints.1/best.ckpt", weights_only=True)["state_dict"], "aside"
    )
    assert "checkpoints of an earlier run; they are in checkpoints.1 now" in caplog.text
    with pytest.raises(DataError):  # a mistake moves nothing
        train(tmp_path / "used", f"data.path={split_images / 'train' / 'amber'}", *new)
    assert not (tmp_path / "used/checkpoints.2").exists()
    start = f"backbone.weights={tmp_path / 'used/checkpoints/best.ckpt'}"
    train(tmp_path / "used", f"data.path={split_images}", *new, start)
    assert (tmp_path / "used/checkpoints.2/best.ckpt").exists()
