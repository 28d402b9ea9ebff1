"""What a run does unless it is told otherwise: pure rules, from a few facts about the data to values with reasons.

``recipe=auto`` is the default. ``fast`` solves the head and trains nothing else; ``best`` trains longer. Every value that
the user gives wins. The hardware plays no part, so a recipe means the same everywhere. docs/recipes.md shows this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

Name = Literal["auto", "fast", "best", "none"]


class Facts(NamedTuple):
    """What the rules look at: training images, also of the smallest and the largest class; median short side."""

    recipe: str
    pretrained: bool
    multilabel: bool
    train: int
    val: int
    classes: int
    smallest: int
    largest: int
    short_side_px: int
    balanced_sampler: bool

    @property
    def ratio(self) -> float:
        """Largest class to smallest."""
        return self.largest / max(1, self.smallest)


class Case(NamedTuple):
    """``value`` where ``holds``; ``when`` and ``why`` are its row in the table, ``why`` with facts in braces."""

    when: str
    holds: Callable[[Facts], bool]
    value: Any
    why: str


class Rule(NamedTuple):
    """The first case that holds decides ``key``; the last one always does. ``evidence`` is where the rule comes from."""

    key: str
    cases: tuple[Case, ...]
    evidence: str


class Decision(NamedTuple):
    """One value of a recipe, and why."""

    key: str
    value: Any
    reason: str


def decide(facts: Facts) -> Iterator[Decision]:
    """One decision per rule, in the order of the table."""
    for rule in RULES:
        case = next(case for case in rule.cases if case.holds(facts))
        yield Decision(rule.key, case.value, case.why.format(facts=facts))


def table() -> str:
    """The rules in Markdown, for docs/recipes.md."""
    lines = ["| key | value | when | because |", "|---|---|---|---|"]
    for rule in RULES:
        for number, case in enumerate(rule.cases):
            key = f"`{rule.key}`" if number == 0 else ""
            reason = case.why.replace("{facts.", "{").replace(":,}", "}").replace(":.1f}", "}")
            lines.append(f"| {key} | `{_typed(case.value)}` | {case.when} | {reason} |")
    evidence = "\n".join(f"- `{rule.key}`: {rule.evidence}" for rule in RULES)
    return "\n".join(lines) + "\n\n" + evidence + "\n"


def _typed(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def _always(_: Facts) -> bool:
    return True


FEW = 20_000
"""Up to here BiT calls a data set small."""
MANY = 500_000
"""From here on, large."""
TINY = 200
"""Below, an epoch in batches of 32 has six steps or fewer."""
UNEVEN = 3.0
"""Ratio of the largest to the smallest class from which the loss has the classes' prior in it."""

RULES = (
    Rule(
        "freeze",
        (
            Case("from scratch", lambda f: not f.pretrained, "none", "random weights have nothing to keep"),
            Case("`recipe=fast`", lambda f: f.recipe == "fast", "head_only", "a solved head takes no epoch"),
            Case("else", _always, "lp_ft", "a solved head first, so that fine-tuning begins at what the features know"),
        ),
        "Kumar et al. 2022 (arXiv:2202.10054): fine-tuning from a random head distorts the features; docs/benchmark.md.",
    ),
    Rule(
        "freeze.batch_norm",
        (
            Case("from scratch", lambda f: not f.pretrained, "live", "there are no statistics to keep"),
            Case(
                "up to 20,000 training images",
                lambda f: f.train <= FEW,
                "frozen",
                "{facts.train:,} images give worse statistics than the pretrained weights have",
            ),
            Case("else", _always, "live", "{facts.train:,} images are enough for statistics of their own"),
        ),
        "141 photographs, EfficientNet-Lite0, AdamW 1e-3: 78% with frozen statistics, 73% with live ones.",
    ),
    Rule(
        "data.image_size",
        (
            Case(
                "median short side up to 64 px",
                lambda f: f.short_side_px <= 64,
                128,
                "images of {facts.short_side_px} px hold no more; 224 px would cost three times as much",
            ),
            Case("else", _always, 224, "what most pretrained weights were made for"),
        ),
        "Kornblith et al. 2019 (arXiv:1805.08974): pretrained networks want small images enlarged.",
    ),
    Rule(
        "data.batch_size",
        (
            Case(
                f"fewer than {TINY} training images",
                lambda f: f.train < TINY,
                16,
                "{facts.train:,} images make too few steps in larger batches",
            ),
            Case("up to 20,000", lambda f: f.train <= FEW, 32, "fits nearly every machine"),
            Case("else", _always, 64, "{facts.train:,} images leave steps enough"),
        ),
        "BiT (Kolesnikov et al. 2020, arXiv:1912.11370) counts steps, not epochs.",
    ),
    Rule(
        "trainer.max_epochs",
        (
            Case("`recipe=best`", lambda f: f.recipe == "best", 30, "three times as long as recipe=auto"),
            Case(
                "up to 500,000 training images",
                lambda f: f.train <= MANY,
                10,
                "about as many steps as BiT takes",
            ),
            Case("else", _always, 5, "{facts.train:,} images make steps enough in five"),
        ),
        "BiT's rule: at batch 512, 500 steps up to 20,000 images and 10,000 up to 500,000: about ten epochs at either end.",
    ),
    Rule(
        "optimizer.lr",
        (
            Case(
                "more than 20,000 training images",
                lambda f: f.train > FEW,
                0.0014,
                "root of two for a batch twice as large",
            ),
            Case("else", _always, 0.001, "AdamW; lp_ft takes 0.3 of it"),
        ),
        "Square root scaling for Adam: Malladi et al. 2022 (arXiv:2205.10287). 3e-4 with frozen BatchNorm: 80.5%, 1e-3: 78%.",
    ),
    Rule(
        "transform",
        (
            Case(
                "from scratch, `recipe=best`",
                lambda f: not f.pretrained and f.recipe == "best",
                "strong",
                "thirty epochs from random weights need more than mirror images",
            ),
            Case("else", _always, "standard", "mild: no class turns into another within ten epochs"),
        ),
        "Wightman et al. 2021 (arXiv:2110.00476): strong augmentation pays in long runs only.",
    ),
    Rule(
        "transform.mixup_alpha",
        (
            Case("`recipe=best`", lambda f: f.recipe == "best", 0.2, "a long run profits from mixed images"),
            Case("else", _always, 0.0, "ten epochs are too few for mixed images"),
        ),
        "BiT: mixup 0.1 above 20,000 images only; Wightman et al. 2021: it pays with epochs.",
    ),
    Rule(
        "scheduler.warmup_epochs",
        (
            Case(f"fewer than {TINY} training images", lambda f: f.train < TINY, 2.0, "one epoch is only a few steps"),
            Case("else", _always, 1.0, "Adam's second moments settle within an epoch"),
        ),
        "Gotmare et al. 2019 (arXiv:1810.13243): warm-up keeps the upper layers from breaking.",
    ),
    Rule(
        "callback.ema",
        (
            Case("`recipe=fast`", lambda f: f.recipe == "fast", False, "nothing moves that could be averaged"),
            Case(
                "from scratch", lambda f: not f.pretrained, False, "in a short run from random weights the average lags"
            ),
            Case("else", _always, True, "the average of the last steps is steadier than the last one"),
        ),
        "Izmailov et al. 2018 (arXiv:1803.05407); Tarvainen and Valpola 2017 (arXiv:1703.01780).",
    ),
    Rule(
        "loss.logit_adjustment",
        (
            Case(
                "several labels an image",
                lambda f: f.multilabel,
                0.0,
                "each class has a threshold of its own, from val",
            ),
            Case(
                "`data.sampler=balanced`",
                lambda f: f.balanced_sampler,
                0.0,
                "the sampler draws every class equally often",
            ),
            Case(
                f"largest class at least {UNEVEN:g} times the smallest",
                lambda f: f.ratio >= UNEVEN,
                1.0,
                "the largest class has {facts.ratio:.1f} times the images of the smallest",
            ),
            Case("else", _always, 0.0, "the largest class has {facts.ratio:.1f} times the images of the smallest"),
        ),
        "Menon et al. 2021 (arXiv:2007.07314). `python -m bench.accuracy.heads uneven`, balanced accuracy: .857 plain, .868 "
        "with balanced weights, .879 adjusted at a ratio of 3; .718, .775, .804 at 10.",
    ),
)
