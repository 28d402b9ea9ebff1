"""Properties that hold for any data set: proportions, independence of order, stability, and groups that stay whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.split import TEST, TRAIN, VAL, assign, draws, fold, join

counts = st.lists(st.integers(1, 60), min_size=1, max_size=6)
seeds = st.integers(-5, 10**6)


def names_of(class_counts: list[int]) -> tuple[list[bytes], np.ndarray]:
    names = [
        f"class{number}/{image}.jpg".encode() for number, count in enumerate(class_counts) for image in range(count)
    ]
    return names, np.repeat(np.arange(len(class_counts)), class_counts)


def split_of(
    names: list[bytes], targets_N: np.ndarray, seed: int = 0, val: float = 0.2, test: float = 0.1
) -> np.ndarray:
    return assign(draws(names, seed), targets_N, val_fraction=val, test_fraction=test)


@pytest.mark.parametrize(
    ("size", "train", "val", "test"),
    [(1, 1, 0, 0), (2, 1, 1, 0), (3, 1, 1, 1), (5, 3, 1, 1), (10, 7, 2, 1), (20, 14, 4, 2)],
)
def test_small_classes_are_divided_as_worked_by_hand(size: int, train: int, val: int, test: int) -> None:
    names, targets_N = names_of([size])
    for seed in range(20):
        got = np.bincount(split_of(names, targets_N, seed), minlength=3)
        assert got.tolist() == [train, val, test]


def test_a_thousand_images_are_divided_within_a_tenth_of_the_fractions() -> None:
    names, targets_N = names_of([1000])
    shares = [np.bincount(split_of(names, targets_N, seed), minlength=3) for seed in range(10)]
    assert all(180 <= share[VAL] <= 220 and 90 <= share[TEST] <= 110 for share in shares)


@settings(deadline=None)
@given(counts, seeds, st.randoms(use_true_random=False))
def test_the_order_of_listing_does_not_matter(class_counts: list[int], seed: int, random: object) -> None:
    names, targets_N = names_of(class_counts)
    order = list(range(len(names)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = split_of([names[place] for place in order], targets_N[order], seed)
    assert (shuffled == split_of(names, targets_N, seed)[order]).all()


@settings(deadline=None)
@given(counts, seeds, st.floats(0.01, 0.6), st.floats(0.0, 0.3))
def test_every_class_with_two_images_keeps_one_in_train_and_has_one_in_val(
    class_counts: list[int], seed: int, val: float, test: float
) -> None:
    names, targets_N = names_of(class_counts)
    split_N = split_of(names, targets_N, seed, val, test)
    for number, count in enumerate(class_counts):
        own = split_N[targets_N == number]
        assert (own == TRAIN).sum() >= 1
        if count >= 2:
            assert (own == VAL).sum() >= 1
        if count >= 3 and test > 0:
            assert (own == TEST).sum() >= 1


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 80), st.integers(1, 40), seeds)
def test_adding_images_moves_at_most_as_many_others(old: int, new: int, seed: int) -> None:
    names, targets_N = names_of([old + new])
    before = split_of(names[:old], targets_N[:old], seed)
    after = split_of(names, targets_N, seed)[:old]
    assert (
        before != after
    ).sum() <= 2 * new  # val and test each have one threshold, which a new image moves by one rank


def test_adding_a_tenth_to_a_large_class_moves_hardly_any_image() -> None:
    names, targets_N = names_of([2200])
    moved = [
        (split_of(names[:2000], targets_N[:2000], seed) != split_of(names, targets_N, seed)[:2000]).mean()
        for seed in range(20)
    ]
    assert np.mean(moved) < 0.002
    assert np.median(moved) == 0


def test_a_larger_test_fraction_leaves_the_validation_images_alone() -> None:
    names, targets_N = names_of([300, 40])
    small, large = split_of(names, targets_N, test=0.1), split_of(names, targets_N, test=0.3)
    assert ((small == VAL) == (large == VAL)).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=1, max_size=150), seeds)
def test_groups_never_straddle_and_every_class_keeps_training_images(images: list[tuple[int, int]], seed: int) -> None:
    targets_N = np.array([label for label, _ in images])
    groups_N = np.array([group for _, group in images])
    names = [f"{place}.jpg".encode() for place in range(len(images))]
    split_N = assign(draws(names, seed), targets_N, groups_N, val_fraction=0.2, test_fraction=0.1)
    folds_N = fold(draws(names, seed), targets_N, groups_N, folds=3)
    for group in np.unique(groups_N):
        assert len(np.unique(split_N[groups_N == group])) == 1
        assert len(np.unique(folds_N[groups_N == group])) == 1
    for label in np.unique(targets_N):
        assert (split_N[targets_N == label] == TRAIN).any()


def test_groups_of_equal_size_are_divided_in_proportion() -> None:
    groups_N = np.repeat(np.arange(50), 8)
    targets_N = groups_N % 2
    names = [f"{place}.jpg".encode() for place in range(400)]
    split_N = assign(draws(names, 3), targets_N, groups_N, val_fraction=0.2, test_fraction=0.2)
    for label in (0, 1):
        assert np.bincount(split_N[targets_N == label], minlength=3).tolist() == [120, 40, 40]


@settings(deadline=None)
@given(counts, st.integers(2, 7), seeds)
def test_folds_share_out_every_class_equally_and_each_image_validates_once(
    class_counts: list[int], folds: int, seed: int
) -> None:
    names, targets_N = names_of(class_counts)
    fold_N = fold(draws(names, seed), targets_N, folds=folds)
    assert ((fold_N >= 0) & (fold_N < folds)).all()
    for number in range(len(class_counts)):
        sizes = np.bincount(fold_N[targets_N == number], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_folds_are_the_same_in_any_order_and_differ_with_the_seed() -> None:
    names, targets_N = names_of([30, 17])
    order = np.random.default_rng(0).permutation(47)
    one = fold(draws(names, 1), targets_N, folds=5)
    assert (fold(draws([names[place] for place in order], 1), targets_N[order], folds=5) == one[order]).all()
    assert (fold(draws(names, 2), targets_N, folds=5) != one).any()


def test_joined_units_follow_chains_of_shared_labels() -> None:
    patient = np.array([0, 0, 1, 1, 2, -1, -1])
    content = np.array([-1, 7, 7, -1, -1, 9, 9])
    unit = join(patient, content)
    assert unit[0] == unit[1] == unit[2] == unit[3]
    assert unit[5] == unit[6]
    assert len(np.unique(unit)) == 3


def test_draws_are_spread_evenly() -> None:
    drawn = draws([str(number).encode() for number in range(20_000)], 0)
    histogram = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert np.abs(histogram - 1000).max() < 130  # four standard deviations
