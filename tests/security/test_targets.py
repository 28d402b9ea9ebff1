"""``_target_`` gadgets by command line, file and checkpoint: none runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from finetune import build
from finetune.errors import CheckpointError, ConfigError

GADGETS = (
    "os.system",
    "posix.system",
    "subprocess.run",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "importlib.import_module",
    "runpy.run_path",
    "pickle.loads",
    "torch.load",
    "torch.hub.load",
    "numpy.load",
    "pandas.read_pickle",
    "pathlib.Path.write_text",
    "shutil.rmtree",
    "hydra.utils.instantiate",
    "hydra.utils.call",
    "hydra._internal.instantiate._instantiate2.instantiate",
)
ALIASES = (
    "finetune.checkpoint.torch.load",
    "finetune.build.instantiate",
    "finetune.build.part",
    "finetune.data.csv.os.system",
    "finetune.data.csv.Path",
    "finetune.head.linear.nn.Linear",
    "finetune.head.linear.nn",
    "finetune.exporter.torchscript.torch.jit.load",
    "finetune.exporter.onnx_int8.onnx.load",
    "finetune.exporter.torchscript._refuse_more_than_tensors",
    "finetune.exporting.shutil.rmtree",
    "finetune.head..linear.LinearHead",
    "finetune.head.__init__.LinearHead",
    "finetune.head.linear.LinearHead.__init__",
    "finetune..os.system",
    ".os.system",
    "",
    "None",
)


@pytest.mark.parametrize("target", [*GADGETS, *ALIASES])
def test_gadget_from_the_command_line_or_a_yaml_file_is_refused(target: str, marker: Path) -> None:
    options = {"_target_": target, "command": f"touch {marker}", "args": f"touch {marker}"}
    with pytest.raises(ConfigError, match="is not allowed"):
        build.part(OmegaConf.create(options))
    with pytest.raises(ConfigError, match="is not allowed"):
        build.part(options, f"touch {marker}")
    assert not marker.exists()


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_"])
def test_instantiation_keys_of_hydra_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} may not be set"):
        build.part({"_target_": "finetune.head.linear.LinearHead", key: [8, 2]}, 8, 2)


def test_target_inside_of_a_value_stays_a_value(marker: Path) -> None:
    nested = {"_target_": "os.system", "_args_": [f"touch {marker}"]}
    with pytest.raises(Exception):  # noqa: B017, PT011 - the head refuses a mapping where a number belongs
        build.part({"_target_": "finetune.head.linear.LinearHead", "dropout": nested}, 8, 2)
    assert not marker.exists()


STORED = (*GADGETS, *ALIASES, "finetune.exporter.artefact.write_metadata", "finetune.data.folder.problems")


@pytest.mark.parametrize("group", ["head", "backbone"])
def test_gadgets_in_a_checkpoint_are_refused(
    group: str, card: Any, marker: Path, checkpoint_with: Callable[..., Path]
) -> None:
    """Also those of our own modules that are no part of this kind."""
    from finetune.classifier import Classifier

    for target in STORED:
        changed = copy.deepcopy(card)
        changed["config"][group] |= {"_target_": target, "command": f"touch {marker}"}
        with pytest.raises(CheckpointError, match=rf"the file asks for {group}\._target_="):
            Classifier.load(checkpoint_with(changed))
    assert not marker.exists()


def test_gadget_as_the_stored_data_source_is_refused(
    card: Any, marker: Path, checkpoint_with: Callable[..., Path]
) -> None:
    from hydra import compose, initialize_config_dir

    from finetune.config import CONF_DIR
    from finetune.exporting import export

    for target in STORED:
        changed = copy.deepcopy(card)
        changed["config"]["data"] = {"_target_": target, "path": f"touch {marker}"}
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = compose("export", overrides=[f"ckpt={checkpoint_with(changed)}", "exporter=safetensors"])
        with pytest.raises(CheckpointError, match=r"the file asks for data\._target_="):
            export(cfg)
    assert not marker.exists()


def test_interpolation_in_a_checkpoint_is_refused(
    card: Any, checkpoint_with: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.classifier import Classifier

    monkeypatch.setenv("HF_TOKEN", "secret-value")
    card["config"]["backbone"]["name"] = "${oc.env:HF_TOKEN}"
    with pytest.raises(CheckpointError, match="interpolation") as refused:
        Classifier.load(checkpoint_with(card))
    assert "secret-value" not in str(refused.value)


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\nclass Head(nn.Linear):\n    def __init__(self, in_features, num_classes):\n"
        "        super().__init__(in_features, num_classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_package")
def test_own_package_counts_when_the_command_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"\+packages=\[mine\]"):
        build.part({"_target_": "mine.Head"}, 8, 2)
    typed = OmegaConf.create({"overrides": {"task": ["+packages=[mine]", "seed=1"]}})
    monkeypatch.setattr(HydraConfig, "initialized", staticmethod(lambda: True))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: typed))
    assert build.part({"_target_": "mine.Head"}, 8, 2).out_features == 2
    assert build.stored("head", {"_target_": "mine.Head"}) == {"_target_": "mine.Head"}
    with pytest.raises(ConfigError, match="is not allowed"):
        build.part({"_target_": "os.system"}, "true")
