"""data.batch_size=auto: what does not fit is cut into parts, and a step stays the step of the whole batch.

Memory runs out here where a step sees more images than a limit, with the errors that torch raises on a GPU and a CPU.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from finetune.callback.auto_batch import parts_that_fit
from finetune.data.sampler import KeyedBatches
from finetune.errors import Interrupted, TrainingError
from finetune.model import ImageClassifier
from finetune.types import Batch
from tests.conftest import write_image_folder
from tests.engine.conftest import Moment, assert_equal, assert_same_run, metrics, signal_at, train

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] data. DefaultCPUAllocator: can't allocate memory")
AUTO = ("data.batch_size=auto", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 training images, so batches of 18 and 17 that no power of two divides; 4 for validation."""
    root = tmp_path_factory.mktemp("many")
    write_image_folder(root, classes=("train/a", "train/b"), n=18, size=(40, 40))
    (root / "train" / "b" / "000.png").unlink()
    return write_image_folder(root, classes=("val/a", "val/b"), n=2, size=(40, 40), seed=1)


@contextmanager
def memory_for(images: int) -> Iterator[list[int]]:
    """A device that holds so many images; gives the sizes of the steps that were computed."""
    batch_loss, seen = ImageClassifier.batch_loss, list[int]()

    def limited(self: ImageClassifier, batch: Batch) -> torch.Tensor:
        if len(batch.indices) > images:
            raise GPU
        seen.append(len(batch.indices))
        return batch_loss(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageClassifier, "batch_loss", limited)
        yield seen


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()])
@pytest.mark.parametrize(
    ("largest", "fits", "expected"), [(32, 32, [32]), (32, 9, [32, 16, 8]), (18, 2, [18, 9, 5, 3, 2])]
)
def test_the_batch_is_halved_until_it_fits(error: Exception, largest: int, fits: int, expected: list[int]) -> None:
    tried: list[int] = []

    def step(images: int) -> None:
        tried.append(images)
        if images > fits:
            raise error

    assert parts_that_fit(step, largest) == 2 ** (len(expected) - 1)
    assert tried == expected


@pytest.mark.parametrize(("error", "times"), [(GPU, 3), (RuntimeError("shapes cannot be multiplied"), 1)])
def test_one_image_that_does_not_fit_and_any_other_error_are_raised(error: RuntimeError, times: int) -> None:
    tried: list[int] = []

    def step(images: int) -> None:
        tried.append(images)
        raise error

    with pytest.raises(RuntimeError) as caught:
        parts_that_fit(step, 4)
    assert caught.value is error
    assert len(tried) == times


def test_parts_hold_the_images_of_their_batch_and_count_by_their_number() -> None:
    plain, cut = (KeyedBatches(torch.arange(35).numpy(), None, 32, 7, 0, 1, sampler="shuffle", parts=n) for n in (1, 4))
    parts = cut.batches(3)
    assert [len(part) for part in parts] == [4, 4, 5, 5, 4, 4, 4, 5]
    assert len(cut) == 8
    for whole, first in zip(plain.batches(3), (0, 4), strict=True):
        assert sorted(whole) == sorted(row for part in parts[first : first + 4] for row in part)
    by_hand = [4 * size / 18 for size in (4, 4, 5, 5)] + [4 * size / 17 for size in (4, 4, 4, 5)]
    assert [cut.weight(number) for number in range(8)] == pytest.approx(by_hand)
    assert [plain.weight(number) for number in range(2)] == [1.0, 1.0]


def test_steps_over_parts_are_those_of_the_plain_batch_and_the_choice_is_said(
    tmp_path: Path, many: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A ViT: nothing in it computes over a batch. The rates are equal; weights differ by the order of a sum."""
    exact = ("backbone.name=test_vit", "transform=none", "cache=none", "optimizer=sgd", "optimizer.lr=0.1")
    overrides = (f"data.path={many}", "freeze=lp_ft", "freeze.l2_sp=0.1", "log_every_n_steps=1", *exact, *AUTO)
    train(tmp_path / "plain", *overrides, "data.batch_size=32")
    with memory_for(5) as seen, caplog.at_level(logging.INFO):
        train(tmp_path / "cut", *overrides)
    assert seen == 4 * [5] + 2 * [4, 4, 5, 5, 4, 4, 4, 5], "two steps of two phases are tried, two epochs trained"
    assert "auto: 32 images a step, 5 at once" in caplog.text
    result = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert result["batch_size"] == {"step": 32, "at_once": 5}
    states = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("plain", "cut")]
    assert states[0]["global_step"] == states[1]["global_step"] == 4
    for name, value in states[0]["state_dict"].items():
        if name.startswith("network."):
            torch.testing.assert_close(states[1]["state_dict"][name], value, rtol=0, atol=2e-6)
    for row, same in zip(metrics(tmp_path / "plain"), metrics(tmp_path / "cut"), strict=True):
        assert {k: v for k, v in row.items() if k.startswith("lr/")} == {k: same[k] for k in row if k.startswith("lr/")}
        assert float(same["train/loss"]) == pytest.approx(float(row["train/loss"]), abs=1e-6)


def test_where_everything_fits_the_trial_leaves_no_trace(tmp_path: Path, many: Path) -> None:
    random = ("callback=[ema]", "head.dropout=0.2", "transform.mixup_alpha=0.2")
    overrides = (f"data.path={many}", "freeze=lp_ft", *random, *AUTO)
    train(tmp_path / "auto", *overrides)
    train(tmp_path / "plain", *overrides, "data.batch_size=32")
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("auto", "plain")
    )
    one["callbacks"] = {name: state for name, state in one["callbacks"].items() if "AutoBatch" not in name}
    for key in ("state_dict", "optimizer_states", "callbacks", "train_loss", "global_step"):
        assert_equal(one[key], other[key], key)
    assert metrics(tmp_path / "auto") == metrics(tmp_path / "plain")


def test_a_resumed_run_keeps_the_parts_it_began_with_to_the_bit(tmp_path: Path, many: Path) -> None:
    """The second process has all the memory it could want, and batch normalisation would see another batch."""
    overrides = (f"data.path={many}", "freeze=none", "head.dropout=0.2", "callback=[ema]", *AUTO)
    with memory_for(9):
        train(tmp_path / "whole", *overrides)
        with signal_at(Moment(0, 2)), pytest.raises(Interrupted):
            train(tmp_path / "stopped", *overrides)
    state = torch.load(tmp_path / "stopped" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2, "the step of the second batch, of which the third part had begun"
    with signal_at(Moment(1, 0, validating=True)), pytest.raises(Interrupted):
        train(tmp_path / "stopped", *overrides, "resume=auto")
    train(tmp_path / "stopped", *overrides, "resume=auto")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_when_one_image_is_too_much_the_message_says_what_else_to_lower(tmp_path: Path, many: Path) -> None:
    with memory_for(0), pytest.raises(TrainingError, match=r"data\.batch_size=1 and .*Take data\.image_size=16"):
        train(tmp_path / "run", f"data.path={many}", "freeze=none", *AUTO)
