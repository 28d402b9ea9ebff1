"""The keyed sampler: every image once an epoch, in an order that only the keys decide."""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.sampler import PADDING, KeyedBatches, evaluation_batches, train_batches
from finetune.random_keys import derive_seed


def sampler(n: int, batch_size: int, rank: int = 0, world_size: int = 1, seed: int = 0) -> KeyedBatches:
    return KeyedBatches(np.arange(n), None, batch_size, seed, rank, world_size, sampler="shuffle")


@given(n=st.integers(1, 300), batch_size=st.integers(1, 64), epoch=st.integers(0, 50))
def test_every_image_comes_once_an_epoch_in_batches_of_nearly_equal_size(n: int, batch_size: int, epoch: int) -> None:
    keyed = sampler(n, batch_size)
    batches = keyed.batches(epoch)
    sizes = [len(batch) for batch in batches]
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    assert len(batches) == len(keyed)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


@given(n=st.integers(4, 200), batch_size=st.integers(1, 32), world=st.integers(1, 4))
def test_processes_share_an_epoch_without_overlap_and_in_step(n: int, batch_size: int, world: int) -> None:
    shares = [sampler(n, batch_size, rank, world).batches(3) for rank in range(world)]
    rows = [row for share in shares for batch in share for row in batch.tolist()]
    assert len(rows) == len(set(rows)) == n - n % world
    assert len({tuple(len(batch) for batch in share) for share in shares}) == 1


@given(n=st.integers(2, 120), half=st.integers(1, 16), epoch=st.integers(0, 9))
def test_two_processes_take_the_steps_of_one_with_the_double_batch(n: int, half: int, epoch: int) -> None:
    order = sampler(n - n % 2, half).batches(epoch)
    whole = train_batches(np.concatenate(order), 2 * half, 0, 1)
    first, second = (train_batches(np.concatenate(order), half, rank, 2) for rank in (0, 1))
    assert len(first) == len(second) == len(whole)
    assert sorted(np.concatenate([*first, *second]).tolist()) == sorted(np.concatenate(whole).tolist())


@given(n=st.integers(1, 200), batch_size=st.integers(1, 32), epoch=st.integers(0, 9), data=st.data())
def test_an_epoch_entered_anywhere_goes_on_as_if_never_left(
    n: int, batch_size: int, epoch: int, data: st.DataObject
) -> None:
    keyed = sampler(n, batch_size)
    keyed.epoch = epoch
    everything = list(keyed)
    keyed.first_batch = data.draw(st.integers(0, len(everything)))
    assert list(keyed) == everything[keyed.first_batch :]


@given(n=st.integers(1, 100), batch_size=st.integers(1, 16), world=st.integers(1, 4))
def test_evaluation_counts_each_image_once_and_processes_run_equally_many_batches(
    n: int, batch_size: int, world: int
) -> None:
    shares = [evaluation_batches(np.arange(n), batch_size, rank, world) for rank in range(world)]
    rows = [row for share in shares for batch in share for row in batch.tolist() if row != PADDING]
    assert sorted(rows) == list(range(n))
    assert len({tuple(len(batch) for batch in share) for share in shares}) == 1


@given(seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 500), image=st.integers(0, 10**7))
def test_neighbouring_keys_give_different_seeds(seed: int, epoch: int, image: int) -> None:
    keys = [(epoch, image), (epoch + 1, image), (epoch, image + 1), (image, epoch + 501)]
    seeds = [derive_seed(seed, "augmentation", *key) for key in keys]
    seeds += [derive_seed(seed, "noise", epoch, image), derive_seed(seed, "order", epoch)]
    assert len(set(seeds)) == len(seeds)


def test_balanced_draws_show_every_class_equally_often() -> None:
    targets = np.array([0] * 90 + [1] * 10)
    keyed = KeyedBatches(np.arange(100), targets, 10, 0, 0, 1, sampler="balanced")
    drawn = np.concatenate([row for epoch in range(20) for row in keyed.batches(epoch)])
    assert abs((targets[drawn] == 1).mean() - 0.5) < 0.04  # 2,000 draws: a standard deviation of .011


@pytest.mark.parametrize("kind", ["shuffle", "balanced"])
def test_every_epoch_and_every_seed_has_an_order_of_its_own(kind: Literal["shuffle", "balanced"]) -> None:
    targets = np.arange(60) % 2
    orders = set()
    for seed, epoch in product(range(2), range(5)):
        keyed = KeyedBatches(np.arange(60), targets, 8, seed, 0, 1, sampler=kind)
        orders.add(tuple(np.concatenate(keyed.batches(epoch)).tolist()))
    assert len(orders) == 10
