"""The table of the recipe, on twelve shapes of data: what is decided, and that each value has its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.recipe import RULES, Facts, decide, table

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def facts(**changes: object) -> Facts:
    plain = {
        "recipe": "auto",
        "pretrained": True,
        "multilabel": False,
        "train": 1000,
        "val": 200,
        "classes": 10,
        "smallest": 100,
        "largest": 100,
        "short_side_px": 300,
        "balanced_sampler": False,
    }
    return Facts(**{**plain, **changes})  # type: ignore[arg-type]


ORDER = (
    "freeze",
    "freeze.batch_norm",
    "data.image_size",
    "data.batch_size",
    "trainer.max_epochs",
    "optimizer.lr",
    "transform",
    "transform.mixup_alpha",
    "scheduler.warmup_epochs",
    "callback.ema",
    "loss.logit_adjustment",
)
USUAL = ("lp_ft", "frozen", 224, 32, 10, 0.001, "standard", 0.0, 1.0, True, 0.0)
SHAPES = {
    "a thousand photographs": (facts(), USUAL),
    "clip art, 136 of eight classes": (
        facts(train=136, val=36, classes=8, smallest=13, largest=19, short_side_px=94),
        ("lp_ft", "frozen", 224, 16, 10, 0.001, "standard", 0.0, 2.0, True, 0.0),
    ),
    "five a class, 8 px": (
        facts(train=40, val=10, smallest=4, largest=4, short_side_px=8),
        ("lp_ft", "frozen", 128, 16, 10, 0.001, "standard", 0.0, 2.0, True, 0.0),
    ),
    "Fashion-MNIST, a hundred a class": (
        facts(train=800, smallest=80, largest=80, short_side_px=28),
        ("lp_ft", "frozen", 128, 32, 10, 0.001, "standard", 0.0, 1.0, True, 0.0),
    ),
    "Fashion-MNIST whole, from scratch": (
        facts(train=48_000, smallest=4800, largest=4800, short_side_px=28, pretrained=False),
        ("none", "live", 128, 64, 10, 0.0014, "standard", 0.0, 1.0, False, 0.0),
    ),
    "20,000 photographs": (facts(train=20_000, smallest=2000, largest=2000), USUAL),
    "20,001 photographs": (
        facts(train=20_001, smallest=2000, largest=2001),
        ("lp_ft", "live", 224, 64, 10, 0.0014, "standard", 0.0, 1.0, True, 0.0),
    ),
    "a million photographs": (
        facts(train=1_000_000, classes=1000, smallest=1000, largest=1000),
        ("lp_ft", "live", 224, 64, 5, 0.0014, "standard", 0.0, 1.0, True, 0.0),
    ),
    "uneven classes": (
        facts(smallest=50, largest=150),
        ("lp_ft", "frozen", 224, 32, 10, 0.001, "standard", 0.0, 1.0, True, 1.0),
    ),
    "uneven classes with several labels an image": (facts(smallest=5, largest=500, multilabel=True), USUAL),
    "recipe=fast": (
        facts(recipe="fast"),
        ("head_only", "frozen", 224, 32, 10, 0.001, "standard", 0.0, 1.0, False, 0.0),
    ),
    "recipe=best from scratch": (
        facts(recipe="best", pretrained=False),
        ("none", "live", 224, 32, 30, 0.001, "strong", 0.2, 1.0, False, 0.0),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_recipe_decides_as_the_table_says(shape):
    given, expected = SHAPES[shape]
    decisions = list(decide(given))
    assert tuple(decision.key for decision in decisions) == ORDER
    assert tuple(decision.value for decision in decisions) == expected
    assert list(decide(given)) == decisions
    for decision in decisions:
        assert len(decision.reason) > 10, decision
        assert "{" not in decision.reason


def test_the_twelve_shapes_use_every_case_of_every_rule_but_one():
    """So that a case nobody tests is seen; the one is the sampler's."""
    used = {
        (rule.key, next(n for n, case in enumerate(rule.cases) if case.holds(given)))
        for given, _ in SHAPES.values()
        for rule in RULES
    }
    every = {(rule.key, number) for rule in RULES for number in range(len(rule.cases))}
    assert every - used == {("loss.logit_adjustment", 1)}
    (*_, adjustment) = decide(facts(smallest=1, largest=100, balanced_sampler=True))
    assert adjustment.value == 0.0


def test_the_document_has_the_table_of_the_code():
    assert table() in (REPOSITORY / "docs/recipes.md").read_text(encoding="utf-8")
