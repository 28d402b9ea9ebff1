"""The compiled trunk gives the plain one's features; it is used where the rule says that it pays, and never in silence."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune.cache import compiling
from finetune.cache.compiling import fast_trunk, repaid_by
from finetune.cache.trunk import Trunk
from finetune.head.linear import LinearHead
from finetune.network import Network
from finetune.preprocessing import Preprocessing
from finetune.stages import divide
from tests.cache.test_features import network_of
from tests.conftest import write_image_folder
from tests.engine.conftest import train

IMAGES = torch.randint(0, 256, (11, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """Two layers whose work can be counted by hand: 8 output channels, 3 x 3 x 3 inputs, at 32 x 32 pixels; 8 x 5."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.top = nn.Linear(8, 5)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.top(self.stem(images_BCHW).relu().mean((2, 3)))
        return found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": "^stem", "blocks": "^top"}


def small_trunk(boundary: int | None = None) -> Trunk:
    torch.manual_seed(0)
    network = Network(Small(), LinearHead(5, 2))
    stages = divide(network)
    return Trunk(network.backbone, stages, len(stages) - 1 if boundary is None else boundary, Preprocessing((32, 32)))


def test_the_rule_counts_images_by_work_and_layers() -> None:
    flops = 2 * 32 * 32 * 8 * 27 + 2 * 8 * 5
    trunk = small_trunk()
    assert repaid_by(trunk, IMAGES[:1]) == round(2 * 190e9 / flops)
    assert repaid_by(trunk.in_dtype(torch.bfloat16), IMAGES[:1]) == round(2 * 1700e9 / flops)


def test_few_images_are_not_worth_it_and_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="finetune")
    trunk = small_trunk()
    assert fast_trunk(trunk, IMAGES, 497, "auto") is trunk
    assert re.search(r"compile   no: 497 images to compute, some \d+ would repay it", caplog.text)
    caplog.clear()
    assert fast_trunk(trunk, IMAGES, 10**9, False) is trunk
    assert fast_trunk(small_trunk(1), IMAGES, 10**9, True).is_whole is False
    assert caplog.text == ""


def test_many_images_are_and_the_twin_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="finetune")
    trunk, twin = small_trunk(), small_trunk()
    monkeypatch.setattr(Trunk, "compiled", lambda *_: twin)
    assert fast_trunk(trunk, IMAGES, repaid_by(trunk, IMAGES[:1]), "auto") is twin
    assert "compile   yes" in caplog.text


def test_a_twin_that_computes_something_else_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trunk, twin = small_trunk(), small_trunk()
    with torch.no_grad():
        twin.module.get_submodule("stem").weight[0] *= 1.01
    monkeypatch.setattr(Trunk, "compiled", lambda *_: twin)
    assert fast_trunk(trunk, IMAGES, 1, True) is trunk
    assert "compile   given up: it changes the features" in caplog.text


def test_without_a_compiler_it_goes_on_with_one_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    trunk = small_trunk()
    with fresh_cache(), config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert fast_trunk(trunk, IMAGES, 1, True) is trunk
    said = [record for record in caplog.records if record.name.startswith("finetune")]
    assert len(said) == 1
    assert "compile   failed, goes on without" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_the_compiled_trunk_gives_the_plain_ones_features_for_any_number_of_images(
    name: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="finetune")
    network = network_of(name, **({"img_size": 32} if "vit" in name else {}))
    stages = divide(network)
    trunk = Trunk(network.backbone, stages, len(stages) - 1, Preprocessing((32, 32)))
    trunk = trunk if dtype == torch.float32 else trunk.in_dtype(dtype)
    twin = fast_trunk(trunk, IMAGES, 1, True)
    assert twin is not trunk, caplog.text
    for count in (1, 8, 11):
        found, expected = twin(IMAGES[:count]).float(), trunk(IMAGES[:count]).float()
        assert found.shape == expected.shape
        spread = float(expected.square().mean().sqrt())
        assert float((found - expected).abs().max()) < (1e-5 if dtype == torch.float32 else 0.05) * max(1, spread)


@pytest.mark.slow
def test_a_run_with_a_compiled_trunk_trains_the_same_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="finetune")
    images = write_image_folder(tmp_path / "images", n=8, size=(40, 40))
    overrides = (f"data.path={images}", "freeze=head_only", "transform=none")
    heads = []
    for word in ("true", "false"):
        train(tmp_path / word, *overrides, f"cache.compile={word}", f"cache.dir={tmp_path / 'store' / word}")
        state = torch.load(tmp_path / word / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        heads.append({name: value for name, value in state.items() if "head" in name})
    assert "compile   yes" in caplog.text
    for name, value in heads[1].items():
        torch.testing.assert_close(heads[0][name], value, rtol=1e-4, atol=1e-6)


def test_the_bounds_cover_every_precision_that_is_stored() -> None:
    assert compiling._BOUNDS.keys() == compiling.GFLOP_A_LAYER.keys() == {torch.float32, torch.bfloat16}
