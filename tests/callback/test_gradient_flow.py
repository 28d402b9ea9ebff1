"""Recorded gradient norms against autograd by hand, and what a resumed run keeps of them."""

from __future__ import annotations

from types import SimpleNamespace

import lightning
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from finetune.backbone.timm_model import create_backbone
from finetune.callback.gradient_flow import GradientFlow, gradient_norms, parameter_groups, read
from finetune.head.linear import LinearHead
from finetune.network import Network


def network() -> Network:
    torch.manual_seed(0)
    backbone = create_backbone(32, name="test_resnet", weights="none")
    return Network(backbone.module, LinearHead(backbone.num_features, 3))


class Learner(lightning.LightningModule):
    """The least that trains; SGD with a clipped gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 0])) for _ in range(count)]


def fit(folder: object, callback: GradientFlow, epochs: int = 1) -> lightning.Trainer:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[callback],
        default_root_dir=str(folder),
        accelerator="cpu",
        gradient_clip_val=1e-3,
        **quiet,
    )
    trainer.fit(Learner(), DataLoader(batches(3), batch_size=None))
    return trainer


def norms_by_hand() -> list[dict[str, float]]:
    """The same three steps written out: each stage's norm is the root of a sum of squares of autograd's gradients."""
    module = network().train()
    stages = {
        "stem": "backbone.conv1 backbone.bn1",
        **{f"layer{i}": f"backbone.layer{i}" for i in (1, 2, 3, 4)},
        "head": "head",
    }
    steps = []
    for images, targets in batches(3):
        named = dict(module.named_parameters())
        gradients = dict(
            zip(named, torch.autograd.grad(F.cross_entropy(module(images), targets), list(named.values())), strict=True)
        )
        steps.append(
            {
                stage: sum(
                    float((g**2).sum()) for name, g in gradients.items() if name.startswith(tuple(prefix.split()))
                )
                ** 0.5
                for stage, prefix in stages.items()
            }
        )
        total = sum(float((g**2).sum()) for g in gradients.values()) ** 0.5
        with torch.no_grad():
            for name, parameter in named.items():
                parameter -= 0.05 * gradients[name] * min(1.0, 1e-3 / (total + 1e-6))
    return steps


def test_every_stage_s_norm_is_that_of_autograd_by_hand_before_clipping(tmp_path):
    fit(tmp_path, GradientFlow())
    rows = read(tmp_path / "gradient_flow.csv")
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row, expected in zip(rows, norms_by_hand(), strict=True):
        assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-3)


def test_layers_are_the_weights_from_input_to_output():
    groups = parameter_groups(network(), "layer")
    assert next(iter(groups)).startswith("conv1")
    assert list(groups)[-1] == "head.linear"
    assert all(len(parameters) == 1 and parameters[0].ndim >= 2 for parameters in groups.values())


def test_what_is_frozen_has_no_norm():
    module = network()
    for parameter in module.backbone.parameters():
        parameter.requires_grad = False
    module(torch.randn(2, 3, 32, 32)).sum().backward()
    norms = gradient_norms(parameter_groups(module, "stage"))
    assert [name for name, norm in norms.items() if norm is not None] == ["head"]


def test_the_trackers_get_the_epoch_s_mean(tmp_path):
    trainer = fit(tmp_path, GradientFlow(), epochs=2)
    rows = [row for row in read(tmp_path / "gradient_flow.csv") if row["epoch"] == 1]
    expected = sum(row["layer1"] for row in rows) / len(rows)
    assert trainer.callback_metrics["gradient_norm/layer1"].item() == pytest.approx(expected, rel=1e-4)


def test_every_n_steps_thins_the_record(tmp_path):
    fit(tmp_path, GradientFlow(every_n_steps=2), epochs=2)
    assert [row["step"] for row in read(tmp_path / "gradient_flow.csv")] == [0, 2, 4]


def test_a_resumed_run_keeps_only_the_steps_that_it_does_not_repeat(tmp_path):
    fit(tmp_path, GradientFlow(), epochs=2)
    callback = GradientFlow()
    module = nn.Module()
    module.network = network()
    callback.on_train_start(SimpleNamespace(default_root_dir=str(tmp_path), global_step=4), module)
    assert [row["step"] for row in callback.rows] == [0, 1, 2, 3]
    assert callback.rows == [row for row in read(tmp_path / "gradient_flow.csv") if row["step"] < 4]


def test_a_run_that_breaks_keeps_its_record(tmp_path):
    class Breaks(GradientFlow):
        def on_train_batch_end(self, *arguments: object) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, Breaks())
    assert len(read(tmp_path / "gradient_flow.csv")) == 1
