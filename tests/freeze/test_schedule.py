"""Schedules: what trains in an epoch is read off a table, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import ConfigError
from finetune.freeze.schedule import FreezeSchedule
from finetune.stages import Stage

STAGES = tuple(
    Stage(
        name=name,
        parameters=(f"{name}.weight", f"{name}.norm.weight"),
        buffers=(f"{name}.mean",),
        modules=(name, f"{name}.norm"),
        norm_parameters=(f"{name}.norm.weight",),
    )
    for name in ("stem", "layer1", "layer2", "head")
)


def spans(phases: list[dict[str, object]], max_epochs: int) -> list[tuple[int, int]]:
    schedule = FreezeSchedule(STAGES, max_epochs, phases=phases)
    return [(phase.start, phase.end) for phase in schedule.phases]


def test_whole_numbers_are_epochs_and_fractions_are_shares_of_the_run() -> None:
    head, everything = {"train": ["head"]}, {"train": ["*"]}
    assert spans([head | {"epochs": 3}, everything], 10) == [(0, 3), (3, 10)]
    assert spans([head | {"epochs": 0.3}, everything], 20) == [(0, 6), (6, 20)]
    assert spans([head | {"epochs": 0.25}, head | {"epochs": 0.25}, everything], 8) == [(0, 2), (2, 4), (4, 8)]
    assert spans([head | {"until": 4}, head | {"until": 0.5}, everything], 10) == [(0, 4), (4, 5), (5, 10)]


def test_a_share_of_a_short_run_is_at_least_one_epoch() -> None:
    assert spans([{"train": ["head"], "epochs": 0.1}, {"train": ["*"]}], 3) == [(0, 1), (1, 3)]


def test_a_run_too_short_for_its_phases_says_so_with_the_key_to_change() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=3 leaves no room for the 2 phases.*0-3, 3-3"):
        spans([{"train": ["head"], "epochs": 3}, {"train": ["*"]}], 3)


def test_every_malformed_phase_is_reported_at_once() -> None:
    phases = [
        {"train": ["head"], "epochs": 1.5},
        {"train": "head", "epochs": -1},
        {"train": ["head"], "epochs": 2, "until": 4},
        {"trian": ["head"], "epochs": 2, "lr_scale": "a", "rewarm_epochs": float("nan"), "batch_norm": "off"},
        {"train": ["*"], "epochs": 3},
    ]
    with pytest.raises(ConfigError) as caught:
        FreezeSchedule(STAGES, 10, phases=phases, l2_sp=-1.0)
    message = str(caught.value)
    for expected in (
        "phases[0].epochs=1.5",
        "phases[1].train='head'",
        "phases[1].epochs=-1",
        "phases[2] needs one of",
        "unknown key 'trian'",
        "phases[3].train=None",
        "phases[3].lr_scale='a'",
        "phases[3].rewarm_epochs=nan",
        "phases[3].batch_norm='off'",
        "phases[4] is the last phase",
        "freeze.l2_sp=-1.0",
    ):
        assert expected in message


def test_no_phase_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"freeze\.phases is empty"):
        FreezeSchedule(STAGES, 10, phases=[])


def test_norm_patterns_train_the_affine_parameters_alone_and_keep_the_modules_frozen() -> None:
    schedule = FreezeSchedule(STAGES, 4, phases=[{"train": ["head", "layer*:norm"]}])
    assert schedule.trainable(0) == {"head.weight", "head.norm.weight", "layer1.norm.weight", "layer2.norm.weight"}
    assert schedule.frozen_modules(0) == {"stem", "stem.norm", "layer1", "layer1.norm", "layer2", "layer2.norm"}


def test_a_norm_pattern_over_stages_without_norms_is_an_error() -> None:
    bare = (Stage("stem", ("w",), (), ("stem",), ()), Stage("head", ("h",), (), ("head",), ()))
    with pytest.raises(ConfigError, match="no normalisation layer"):
        FreezeSchedule(bare, 4, phases=[{"train": ["head", "*:norm"]}])


def test_the_rate_climbs_again_where_a_stage_thaws_and_only_there() -> None:
    phases = [{"train": ["head"], "epochs": 2}, {"train": ["*"], "lr_scale": 0.5, "rewarm_epochs": 1.0}]
    schedule = FreezeSchedule(STAGES, 6, phases=phases)
    by_hand = {0.0: 1.0, 1.99: 1.0, 2.0: 0.0, 2.25: 0.125, 2.5: 0.25, 3.0: 0.5, 5.9: 0.5}
    assert {at: schedule.lr_factor(at) for at in by_hand} == pytest.approx(by_hand)


def test_the_stage_key_fills_the_patterns() -> None:
    schedule = FreezeSchedule(STAGES, 4, phases=[{"train": ["head", "{stage}"]}], stage="@-1")
    assert schedule.phase(0).stages == ("head", "layer2")


@given(max_epochs=st.integers(3, 200), first=st.floats(0.01, 0.45), second=st.floats(0.01, 0.45))
def test_phases_divide_the_run_without_gap_or_overlap(max_epochs: int, first: float, second: float) -> None:
    head = {"train": ["head"]}
    found = spans([head | {"epochs": first}, head | {"epochs": second}, {"train": ["*"]}], max_epochs)
    assert [epoch for start, end in found for epoch in range(start, end)] == list(range(max_epochs))
