"""The values of a sweep: the command line's replace the preset's, draws are repeatable and where they should be."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.errors import ConfigError
from finetune.sweep.naming import job_names
from finetune.sweep.resources import slots
from finetune.sweep.space import dimensions, product, sample


def test_the_product_is_in_the_order_of_the_command_line() -> None:
    found = product(dimensions({}, ["a=1,2", "b=x", "c=range(0,2)"]))
    assert found == [["a=1", "b=x", "c=0"], ["a=1", "b=x", "c=1"], ["a=2", "b=x", "c=0"], ["a=2", "b=x", "c=1"]]


def test_a_key_on_the_command_line_replaces_the_presets() -> None:
    found = product(dimensions({"lr": "1,2,3", "freeze": "a,b"}, ["lr=7", "data.path=x"]))
    assert found == [["freeze=a", "lr=7", "data.path=x"], ["freeze=b", "lr=7", "data.path=x"]]


def test_an_interval_has_no_product() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr: an interval has no end of values"):
        product(dimensions({"optimizer.lr": "interval(0.1,1)"}, []))


@pytest.mark.parametrize("text", ["lr=interval(1,0.1)", "lr=tag(log,interval(0,1))", "lr=choice(1"])
def test_a_space_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="lr="):
        dimensions({}, [text])


def test_draws_are_even_in_the_logarithm_within_bounds_and_whole_where_asked() -> None:
    space = dimensions(
        {}, ["lr=tag(log,interval(1e-5,1e-1))", "depth=int(interval(1,4))", "freeze=choice(a,b)", "seed=3"]
    )
    drawn = [dict(text.split("=") for text in overrides) for overrides in sample(space, 400, seed=0)]
    exponents = np.log10([float(values["lr"]) for values in drawn])
    assert exponents.min() >= -5
    assert exponents.max() <= -1
    counts, _ = np.histogram(exponents, bins=4, range=(-5, -1))
    assert all(70 <= count <= 130 for count in counts)  # 100 expected in each decade, standard deviation 8.7
    assert {values["depth"] for values in drawn} == {"1", "2", "3", "4"}
    assert {values["freeze"] for values in drawn} == {"a", "b"}
    assert {values["seed"] for values in drawn} == {"3"}


def test_a_larger_budget_keeps_the_first_draws() -> None:
    space = dimensions({}, ["lr=interval(0.0,1.0)"])
    assert sample(space, 9, seed=1)[:5] == sample(space, 5, seed=1)
    assert sample(space, 5, seed=2) != sample(space, 5, seed=1)


def test_no_combination_is_drawn_twice() -> None:
    assert len(sample(dimensions({}, ["a=1,2", "b=1,2"]), 50, seed=0)) == 4


def test_jobs_are_named_by_what_differs() -> None:
    assert job_names([["a=1", "c=9"], ["a=2", "c=9"]]) == ["a=1", "a=2"]
    assert job_names([["data.path=/x/y z"]]) == ["data.path=-x-y-z"]


def test_names_that_would_meet_in_one_directory_are_told_apart() -> None:
    names = job_names([["p=a/b"], ["p=a b"], ["p=A b"]])
    assert len({name.lower() for name in names}) == 3
    assert len(job_names([["k=" + "x" * 500], ["k=" + "y" * 500]])[0]) < 200


def test_cores_and_gpus_are_divided() -> None:
    two = slots(2, range(8), ["0", "1", "2", "3"], threads=None, gpus_per_job=None)
    assert [slot.threads for slot in two] == [4, 4]
    assert sorted(core for slot in two for core in slot.cores or ()) == list(range(8))
    assert [slot.gpus for slot in two] == [("0", "1"), ("2", "3")]
    three = slots(3, [0, 1], ["0"], threads=1, gpus_per_job=None)
    assert [(slot.cores, slot.gpus, slot.threads) for slot in three] == [
        ((0,), ("0",), 1), ((1,), ("0",), 1), ((0,), ("0",), 1),
    ]  # fmt: skip
    assert slots(1, [0], [], threads=None, gpus_per_job=None)[0].gpus is None
