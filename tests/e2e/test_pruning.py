"""A trial that is worse than the earlier ones ends early, and ends like any run."""

from __future__ import annotations

from pathlib import Path

import hydra
import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra

from finetune import training
from finetune.config import CONF_DIR
from finetune.errors import ConfigError
from finetune.run_directory import RunDirectory
from tests.conftest import write_image_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),  # Lightning 2.6 with torch 2.15
]
_TINY = (
    "backbone.name=test_resnet", "backbone.weights=none", "data.image_size=32", "data.batch_size=4",
    "data.num_workers=0",
    "trainer=cpu", "trainer.precision=32-true", "report=none", "freeze=none", "cache=none", "logger=csv",
    "trainer.max_epochs=6", "optimizer.lr=1e-9",
    "+callback.pruning._target_=finetune.callback.pruning.Pruning", "+callback.pruning.warmup_epochs=2",
    "+callback.pruning.monitor=${monitor}",
)  # fmt: skip


def _train(directory: Path, images: Path) -> dict[str, object]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[*_TINY, f"data.path={images}"])
    directory.mkdir()
    return training.train(cfg, RunDirectory(directory), {"freeze": "none", "head": "linear"})


def test_a_hopeless_trial_ends_after_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    for _ in range(5):  # five earlier trials that were perfect from the first epoch on
        good = dict.fromkeys(range(6), 1.0)
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values=good))
    trial = study.ask()
    monkeypatch.setenv("FINETUNE_OPTUNA_STORAGE", storage)
    monkeypatch.setenv("FINETUNE_OPTUNA_STUDY", "s")
    monkeypatch.setenv("FINETUNE_OPTUNA_TRIAL", str(trial._trial_id))
    result = _train(tmp_path / "run", write_image_folder(tmp_path / "images"))
    assert result["status"] == "completed"
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert len(rows) == 3  # two epochs of warm-up, then the first that may end it: half of the epochs are saved
    found = study.trials[-1]
    assert found.user_attrs == {"pruned_after_epoch": 3}
    assert sorted(found.intermediate_values) == [0, 1, 2]


def test_the_callback_by_hand_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUNE_OPTUNA_STORAGE", raising=False)
    with pytest.raises(ConfigError, match="callback=pruning belongs to the trials of sweep=optuna"):
        _train(tmp_path / "run", write_image_folder(tmp_path / "images"))
