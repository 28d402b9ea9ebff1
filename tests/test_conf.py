"""Every shipped YAML composes, and says exactly what the part behind it accepts: the same keys, the same defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from finetune import command_line, config
from finetune.backbone import known
from finetune.signature import fits, foreign_signature, signature

CONF = Path(__file__).resolve().parent.parent / "conf"
VERBS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "application")
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix()
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("experiment", "sweep")
)
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))
MULTILABEL = "monitor=val/map"


def plain(file: Path) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return content


def problems(verb: str, *overrides: str) -> list[str]:
    found = command_line.problems(verb, [*overrides], to_be_run=False)
    return [str(problem) for problem in found]


def verb_of(group: str) -> str:
    return next(verb for verb in ("train", *VERBS) if group in config.defaults(verb))


def test_the_folder_of_configurations_is_found():
    assert config.CONF_DIR == CONF
    assert {"train", "check", "evaluate", "predict", "export"} <= set(VERBS)
    assert len(OPTIONS) > 40


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_composes_and_is_right_as_shipped(verb):
    assert problems(verb) == []


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_a_group_composes_and_is_right_as_shipped(option):
    group, name = option.split("/")
    choice = f"{group}=[{name}]" if group in config.SEVERAL else f"{group}={name}"
    assert problems(verb_of(group), choice) == []


@pytest.mark.parametrize("option", OPTIONS)
def test_a_yaml_has_the_keys_and_the_defaults_of_its_part_s_signature(option):
    keys = plain(CONF / f"{option}.yaml")
    target = keys.pop("_target_", None)
    parameters = {} if target is None else signature(target)
    if parameters is None:
        accepted = foreign_signature(target)
        assert accepted is not None, f"{target}: no signature to hold {option} against"
        assert keys.keys() <= accepted.keys()
        return
    if target is None:  # a word for what is decided later (loss=auto), or one option with changes (trainer=cpu)
        assert "defaults" in keys or keys == {"name": option.split("/")[1]}
        return
    optional = {name for name, parameter in parameters.items() if not parameter.required and parameter.default is None}
    assert keys.keys() | optional == parameters.keys(), "keys and keyword-only parameters differ"
    for name, value in keys.items():
        parameter = parameters[name]
        if value == "???":
            continue
        assert fits(value, parameter.annotation), f"{option}: {name}={value} is no {parameter.annotation}"
        if not parameter.required and not chosen_by_the_option(option, name):
            assert value == parameter.default, f"{option}: {name}={value}, but the signature says {parameter.default}"


def chosen_by_the_option(option: str, key: str) -> bool:
    """Options that share one target differ in the key that gives them their name."""
    group = option.partition("/")[0]
    return (group, key) in {
        ("backbone", "name"),
        ("backbone", "weights"),
        ("freeze", "stage"),
        ("freeze", "phases"),
        ("freeze", "solve_head"),
        ("freeze", "batch_norm"),
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_a_yaml_says_in_its_first_lines_how_it_is_chosen(option):
    group, name = option.split("/")
    head = "\n".join((CONF / f"{option}.yaml").read_text(encoding="utf-8").splitlines()[:3])
    named = (f"{group}={name}", f"{group}=[csv,{name}]", "(default)", "data.path=DIR", "python -m finetune.")
    assert head.startswith("#")
    assert any(words in head for words in named), head


@pytest.mark.parametrize("group", config.SEVERAL)
def test_an_option_of_which_several_are_taken_has_its_own_package(group):
    for file in (CONF / group).glob("*.yaml"):
        assert file.read_text(encoding="utf-8").startswith(f"# @package {group}.{file.stem}\n"), file


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_with_known_keys_and_right_values(name):
    assert problems("train", f"experiment={name}") == []
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        without = hydra.compose("train")
        cfg = hydra.compose("train", [f"experiment={name}"])
    GlobalHydra.instance().clear()
    shipped = {key for key, _ in config.flatten(without)} | OmegaConf.missing_keys(without)
    of_parts = tuple(f"{path}." for path, _ in config.parts(cfg))
    free = ("sweep.", *of_parts)
    assert {key for key, _ in config.flatten(cfg) if not key.startswith(free)} <= shipped


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_composes_and_sweeps_over_keys_that_there_are(name):
    found = command_line.problems("train", [f"sweep={name}"], multirun=True, to_be_run=False)
    assert found == []
    for key, values in plain(CONF / "sweep" / f"{name}.yaml").get("space", {}).items():
        line = f"{key}={values}"
        assert command_line.problems("train", [line], multirun=True, to_be_run=False) == [], line


def test_every_network_that_a_yaml_names_is_known():
    for file in (CONF / "backbone").glob("*.yaml"):
        name = plain(file)["name"]
        assert name == "???" or known.name_problem(name) == "", file


def test_kinds_are_for_keys_that_there_are():
    shipped: set[str] = set()
    for verb in VERBS:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose(verb, ["+trainer.num_nodes=1"] if verb == "train" else [])
        GlobalHydra.instance().clear()
        shipped |= {key for key, _ in config.flatten(cfg)} | OmegaConf.missing_keys(cfg)
    assert config.KINDS.keys() <= shipped
