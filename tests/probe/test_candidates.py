"""Which point between probe and fine-tuned network is kept, on scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.candidates import Candidate, HeldOut, choose, scores, why
from finetune.interpolation import COEFFICIENTS


def of(*rows: list[float]) -> list[tuple[float, float, np.ndarray]]:
    return [
        (coefficient, float(np.mean(row)), np.asarray(row, dtype=np.float64))
        for coefficient, row in zip(COEFFICIENTS, rows)
    ]


def test_a_clear_gain_on_many_images_is_taken_and_equals_go_to_the_probe():
    better = [1.0] * 90 + [0.0] * 10
    kept, candidates = choose(
        of([1.0] * 50 + [0.0] * 50, [1.0] * 70 + [0.0] * 30, better, better, better), None, larger_is_better=True
    )
    assert kept.coefficient == 0.5
    assert [candidate.value for candidate in candidates] == [0.5, 0.7, 0.9, 0.9, 0.9]


def test_one_image_more_of_ten_is_no_reason_to_leave_the_probe():
    # one image of ten: the difference is 0.1, and so is its standard error (0.316 / sqrt(10) = 0.1)
    six, seven = [1.0] * 6 + [0.0] * 4, [1.0] * 7 + [0.0] * 3
    kept, candidates = choose(of(six, six, seven, seven, seven), None, larger_is_better=True)
    assert kept.coefficient == 0.0
    assert candidates[0].standard_error == pytest.approx(0.1)


def test_a_val_set_that_is_hard_for_the_probe_flatters_nobody():
    """The probe has 0.4 on val and 0.9 on 200 images by cross-validation: 0.6 on val is then no gain."""
    rng = np.random.default_rng(0)
    probe = (rng.random(20) < 0.4).astype(float)
    tuned = np.where(rng.random(20) < 0.7, np.maximum(probe, rng.random(20) < 0.5), probe).astype(float)
    rows = of(list(probe), list(probe), list(probe), list(probe), list(tuned))
    assert choose(rows, None, larger_is_better=True)[0].coefficient == 1.0
    kept, candidates = choose(rows, HeldOut(0.9, 200), larger_is_better=True)
    assert kept.coefficient == 0.0
    # worked by hand: the probe's estimate is the mean over all the images it was held out of
    assert candidates[0].estimate == pytest.approx((0.9 * 200 + probe.sum()) / 220)


def test_the_estimates_are_nearer_to_the_truth_than_val_alone():
    """Simulated: both networks are right on 80% of all images, and mostly on the same ones."""
    rng = np.random.default_rng(1)
    plain, corrected = [], []
    for _ in range(400):
        easy = rng.random(30)
        probe, tuned = ((easy + rng.normal(0, 0.04, 30)) > 0.2 for _ in range(2))
        held_out = HeldOut(float((rng.random(300) < 0.8).mean()), 300)
        found = of(*[list(probe.astype(float))] * 4, list(tuned.astype(float)))
        candidate = choose(found, held_out, larger_is_better=True)[1][-1]
        plain.append(candidate.value)
        corrected.append(candidate.estimate)
    assert np.std(corrected) < 0.75 * np.std(plain)
    assert np.mean(corrected) == pytest.approx(np.mean(plain), abs=0.02)


def test_nothing_is_kept_that_val_puts_below_the_probe():
    """Also where cross-validation says that the probe was lucky on val, and the other was right on other images."""
    probe = [1.0] * 30 + [0.0] * 10
    other = [1.0] * 22 + [0.0] * 8 + [1.0] * 7 + [0.0] * 3
    for held_out in (None, HeldOut(0.1, 400), HeldOut(0.99, 400)):
        kept, candidates = choose(of(probe, other, other, other, other), held_out, larger_is_better=True)
        assert kept.coefficient == 0.0
        assert candidates[1].value == 0.725 < candidates[0].value == 0.75


def test_of_a_loss_less_is_better():
    losses = [0.9, 0.5, 0.4, 0.4, 0.7]
    measured = [(coefficient, loss, -np.full(50, loss)) for coefficient, loss in zip(COEFFICIENTS, losses)]
    assert choose(measured, None, larger_is_better=False)[0].coefficient == 0.5


def test_scores_have_the_mean_that_the_monitor_reports():
    from finetune.metrics.summary import result

    rng = np.random.default_rng(2)
    targets = np.array([0] * 30 + [1] * 10 + [2] * 5)
    logits = rng.normal(size=(45, 3)) + np.eye(3)[targets]
    figures = result(logits, targets)
    assert scores(logits, targets, "val/accuracy").mean() == pytest.approx(figures["accuracy"])
    assert scores(logits, targets, "val/balanced_accuracy").mean() == pytest.approx(figures["balanced_accuracy"])
    assert -scores(logits, targets, "val/loss").mean() == pytest.approx(figures["loss"])
    several = (rng.random((45, 3)) < 0.5).astype(np.float32)
    assert -scores(logits, several, "val/map").mean() == pytest.approx(result(logits, several)["loss"])


def test_the_reason_is_said():
    candidates = [Candidate(0.0, 0.6, 0.62, 0.05), Candidate(0.5, 0.65, 0.65, 0.0)]
    said = why(candidates[0], candidates, HeldOut(0.63, 80), 20)
    assert said["between"] == "0: 0.6000  0.5: 0.6500 on 20 val images; the probe has 0.6300 cross-validated on 80"
    assert said["kept"] == "the probe: 0.5 is better by 0.030, within the standard error of 0.050"
