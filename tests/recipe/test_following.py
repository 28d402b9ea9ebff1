"""The recipe in a configuration: what the user gives wins, the rest is decided once, and a run replays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from finetune.config import CONF_DIR
from finetune.following import follow, given_keys, lines
from finetune.run_directory import RunDirectory
from tests.conftest import write_image_folder
from tests.engine.conftest import TINY, assert_equal
from tests.recipe.test_recipe import facts


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra.compose("train", overrides=["data.path=images", *overrides])


def followed(*overrides: str, **changes: object) -> tuple[DictConfig, dict[str, tuple[object, bool]]]:
    cfg, done = follow(composed(*overrides), facts(**changes), given_keys(overrides))
    return cfg, {entry.key: (entry.value, entry.given) for entry in done}


def test_a_key_that_is_given_wins_even_at_the_value_that_ships() -> None:
    assert followed("data.batch_size=auto")[1]["data.batch_size"] == ("auto", True)
    cfg, done = followed("trainer.max_epochs=10", "data.batch_size=32", train=100, recipe="best")
    assert done["trainer.max_epochs"] == (10, True)
    assert done["data.batch_size"] == (32, True)
    assert done["scheduler.warmup_epochs"] == (2.0, False)
    assert (cfg.trainer.max_epochs, cfg.data.batch_size, cfg.scheduler.warmup_epochs) == (10, 32, 2.0)


def test_a_group_that_is_given_keeps_its_keys_and_a_key_keeps_its_group() -> None:
    cfg, done = followed(
        "optimizer=sgd", "transform.rotate_deg=0", "freeze=gradual", "callback=early_stopping", pretrained=False
    )
    assert all(done[key][1] for key in ("optimizer.lr", "transform", "freeze", "freeze.batch_norm", "callback.ema"))
    assert cfg.optimizer.lr == 0.01
    assert cfg.transform.rotate_deg == 0
    assert list(cfg.callback) == ["early_stopping"]
    assert not done["transform.mixup_alpha"][1]


@pytest.mark.parametrize(
    "given", [["loss=cross_entropy"], ["loss=cross_entropy", "loss.class_weights=balanced"], ["loss=focal"]]
)
def test_a_loss_that_is_given_is_mended_by_nobody(given: list[str]) -> None:
    cfg, done = followed(*given, smallest=10, largest=100)
    assert done["loss.logit_adjustment"][1]
    assert cfg.loss == composed(*given).loss


def test_uneven_classes_are_mended_once() -> None:
    assert followed(smallest=10, largest=100)[0].loss.logit_adjustment == 1.0
    assert followed(smallest=10, largest=100)[0].loss.class_weights == "none"
    assert (
        followed("data.sampler=balanced", smallest=10, largest=100, balanced_sampler=True)[0].loss.logit_adjustment == 0
    )
    assert "logit_adjustment" not in followed(smallest=10, largest=100, multilabel=True)[0].loss


@pytest.mark.parametrize("switch", ["data=csv", "trainer=cpu", "backbone=efficientnet_lite0", "freeze=auto"])
def test_an_option_that_says_where_or_what_leaves_the_rest_to_the_recipe(switch: str) -> None:
    assert not any(given for _, given in followed(switch)[1].values())


def test_an_experiment_may_choose_its_recipe() -> None:
    assert composed("experiment=depth_study").recipe == "none"
    assert composed("experiment=depth_study", "recipe=fast").recipe == "fast"


def test_what_an_experiment_sets_is_given() -> None:
    cfg, done = follow(
        composed("experiment=depth_study", "recipe=auto"),
        facts(pretrained=False),
        given_keys([], [CONF_DIR / "experiment/depth_study.yaml"]),
    )
    kept = {entry.key for entry in done if entry.given}
    assert {"data.image_size", "trainer.max_epochs", "optimizer.lr", "transform", "callback.ema"} <= kept
    assert (cfg.data.image_size, cfg.trainer.max_epochs, cfg.optimizer.lr) == (48, 8, 0.02)


def test_a_recipe_that_was_followed_stays_as_it_is() -> None:
    once, _ = followed(train=100, short_side_px=20)
    twice, done = follow(once, facts(train=1_000_000), ())
    assert done == []
    assert twice == once
    assert once.recipe == "none"


def test_every_value_is_said_with_its_reason_and_what_was_given_as_given() -> None:
    shape = facts(train=136, classes=8, smallest=13, largest=19)
    _, done = follow(composed("data.image_size=128"), shape, ["data.image_size"])
    said = list(lines("auto", shape, done))
    assert said[0] == "recipe    auto, for 136 training images of 8 classes (13 to 19 a class)"
    assert len(said) == 12
    assert "  data.image_size=128           given; the recipe says 224" in said
    assert "  data.batch_size=16            136 images make too few steps in larger batches" in said


def test_a_run_replays_from_its_config_to_the_last_bit(tmp_path: Path) -> None:
    from finetune import training

    images = write_image_folder(tmp_path / "images", n=10, size=(40, 40))
    tiny = [override for override in TINY if not override.startswith("freeze")]
    overrides = [*tiny, f"data.path={images}", "trainer.max_epochs=1"]
    cfg = composed(*overrides)
    first, second = (RunDirectory(tmp_path / name) for name in ("first", "second"))
    for run in (first, second):
        run.root.mkdir()
    choices = {"freeze": "auto", "head": "linear"}
    training.train(cfg, first, choices, given_keys(overrides))
    written = OmegaConf.load(first.config)
    assert isinstance(written, DictConfig)
    loss = (written.loss.class_weights, written.loss.logit_adjustment)
    assert (written.recipe, *loss, written.scheduler.warmup_epochs) == ("none", "none", 0.0, 2.0)
    training.train(written, second, choices, ())
    one, other = (torch.load(run.best, weights_only=True)["state_dict"] for run in (first, second))
    assert_equal(one, other, "best.ckpt")
    record = json.loads(first.recipe.read_text())
    assert record["name"] == "auto"
    assert record["facts"]["train"] == 24
    assert {entry["key"]: entry["given"] for entry in record["decisions"]}["data.batch_size"] is True
    assert json.loads(second.recipe.read_text())["decisions"] == []
