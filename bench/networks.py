"""Rows that compare forward passes and training steps in this process: trunk, full fine-tuning, stored boundary."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from bench.bare import BATCH, FullLoop, has_bf16, resnet50
from bench.measure import alternate, command, now, seconds
from bench.table import Row
from bench.whole_commands import train


def trunk(repeats: int) -> Iterator[Row]:
    """The frozen trunk against the plain float32 module in eval mode, contiguous, no gradients."""
    import torch

    from finetune.cache.trunk import Trunk
    from finetune.head.linear import LinearHead
    from finetune.network import Network
    from finetune.preprocessing import Preprocessing
    from finetune.stages import divide

    plain = resnet50().eval()
    stages = divide(Network(plain, LinearHead(2048, 2)))
    images_BCHW = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8)
    preprocessing = Preprocessing()
    single = Trunk(plain, stages, len(stages) - 1, preprocessing)
    trunks = [single, single.in_dtype(torch.bfloat16)]

    def live() -> None:
        with torch.no_grad():
            plain(preprocessing.normalize(images_BCHW))

    sides = [live, *(lambda trunk=trunk: trunk(images_BCHW) for trunk in trunks)]
    for side in sides:
        side()
    base, full_rate, half = (
        BATCH / statistics.median(times)
        for times in alternate(repeats, *(lambda side=side: seconds(side) for side in sides))
    )
    yield Row(
        "frozen trunk, float32 / plain eval module",
        full_rate / base,
        ">= 1.6",
        f"{full_rate:.1f} / {base:.1f} images/s",
    )
    bar = ">= 3" if has_bf16() else ">= 0"
    yield Row("frozen trunk, bfloat16 / plain eval module", half / base, bar, f"{half:.1f} / {base:.1f} images/s")


def depthwise(repeats: int) -> Iterator[Row]:
    """A bfloat16 training step of networks of depthwise convolutions as ``train`` makes it, against plain autocast."""
    import timm
    import torch

    from finetune.depthwise import Float32Depthwise

    if not has_bf16():
        return
    gains = {}
    for name in ("tf_efficientnet_lite0", "mobilenetv3_large_100"):
        network = timm.create_model(name, num_classes=10).to(memory_format=torch.channels_last)
        images_BCHW = torch.randn(16, 3, 224, 224).contiguous(memory_format=torch.channels_last)

        def step(guard: AbstractContextManager[object], network: Any = network, images: Any = images_BCHW) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16), guard:
                logits_BK = network(images)
            torch.nn.functional.cross_entropy(logits_BK.float(), torch.arange(16) % 10).backward()

        plain, ours = (
            statistics.median(times)
            for times in alternate(
                repeats,
                lambda step=step: seconds(lambda: step(nullcontext())),
                lambda step=step: seconds(lambda: step(Float32Depthwise())),
            )
        )
        gains[name] = plain / ours
    note = ", ".join(f"{name} {gain:.2f}" for name, gain in gains.items())
    yield Row(
        "training step with depthwise convolutions in float32 / plain bfloat16", min(gains.values()), ">= 1", note
    )


def compiled(work: Path, repeats: int) -> Iterator[Row]:
    """The frozen trunk through ``torch.compile`` against itself uncompiled, and what compiling took with nothing kept."""
    import torch

    from finetune.cache.compiling import repaid_by
    from finetune.cache.trunk import Trunk
    from finetune.head.linear import LinearHead
    from finetune.network import Network
    from finetune.preprocessing import Preprocessing
    from finetune.stages import divide

    plain = resnet50().eval()
    stages = divide(Network(plain, LinearHead(2048, 2)))
    images_BCHW = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8)
    for dtype, bar in ((torch.float32, ">= 1.3"), (torch.bfloat16, ">= 1")):
        trunk = Trunk(plain, stages, len(stages) - 1, Preprocessing()).in_dtype(dtype)
        trunk(images_BCHW)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work / f"inductor-{dtype}")
        started = time.perf_counter()
        twin = trunk.compiled(images_BCHW)
        compile_s = time.perf_counter() - started
        sides = alternate(repeats, *(partial(seconds, partial(side, images_BCHW)) for side in (trunk, twin)))
        before_s, after_s = (statistics.median(times) / BATCH for times in sides)
        pays = compile_s / (before_s - after_s) if before_s > after_s else float("inf")
        note = (
            f"{1 / after_s:.1f} / {1 / before_s:.1f} images/s, compiled in {compile_s:.0f} s by the wall's clock: repaid by "
            f"{pays:.0f} images, cache.compile=auto says {repaid_by(trunk, images_BCHW[:1])}"
        )
        yield Row(f"compiled trunk, {str(dtype).removeprefix('torch.')} / uncompiled", before_s / after_s, bar, note)


def full(images: Path, work: Path) -> Iterator[Row]:
    """``train`` with augmentation against the bare loop on synthetic images, in turn, within one process."""
    loop = FullLoop(BATCH, 2)
    loop.step()
    pace = Pace(lambda: seconds(loop.step))
    few = ("data.val_fraction=0.05", "cache=none")
    fit(work / "full", pace, f"data.path={images}", "freeze=none", "trainer.max_epochs=1", *few)
    bare = statistics.median(pace.bare_s)
    ours = statistics.median(pace.step_s)
    note = (
        f"{BATCH / ours:.1f} / {BATCH / bare:.1f} images/s, batch {BATCH}, medians of {len(pace.step_s)} steps in turn"
    )
    yield Row("full fine-tuning with augmentation / bare synthetic loop", bare / ours, ">= 0.95", note)

    small = ("trainer.max_epochs=1", "freeze=none", "+trainer.limit_train_batches=4", "+trainer.limit_val_batches=1")
    ours_cost, _ = train(images, work, *small, "cache=none", cache=work / "memory")
    script = command("-m", "bench.bare", "full", str(images))
    note = f"{ours_cost.peak_mib:.0f} MiB / {script.peak_mib:.0f} MiB"
    yield Row(
        "peak memory of full fine-tuning / the bare loop's", ours_cost.peak_mib / script.peak_mib, "<= 1.15", note
    )


def boundary(images: Path, work: Path) -> Iterator[Row]:
    """layer4 and head train: an epoch from the stored input of layer4 against a live one."""
    overrides = (f"data.path={images}", "freeze=surgical", "transform=none", "trainer.max_epochs=3")
    phases = "freeze.phases=[{train:[head],epochs:1},{train:[head,layer4],batch_norm:frozen}]"
    epochs = {}
    for name, cache in (("stored", "features"), ("live", "none")):
        pace = Pace(lambda: 0.0)
        fit(
            work / name,
            pace,
            *overrides,
            phases,
            f"cache={cache}",
            f"{'' if cache == 'none' else f'cache.dir={work}/boundary'}",
        )
        epochs[name] = pace.epoch_s[-1]
    note = f"{epochs['stored']:.1f} s / {epochs['live']:.1f} s an epoch, training and validation"
    yield Row("layer4 + head train, stored boundary / live", epochs["stored"] / epochs["live"], "<= 0.5", note)


class Pace:
    """A callback's eyes on a fit: seconds between the ends of steps, and of whole epochs; runs ``other`` in between."""

    def __init__(self, other: Callable[[], float]) -> None:
        self.other = other
        self.step_s: list[float] = []
        self.bare_s: list[float] = []
        self.epoch_s: list[float] = []

    def callback(self) -> Any:
        """As Lightning wants it."""
        from lightning.pytorch import Callback

        pace = self

        class Watch(Callback):
            started = 0.0
            epoch = 0.0

            def on_train_epoch_start(self, *_: Any) -> None:
                Watch.epoch = now()

            def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
                ended = now()
                if batch_idx > 0 and len(batch.indices) >= BATCH - 2:
                    pace.step_s.append((ended - Watch.started) * BATCH / len(batch.indices))
                pace.bare_s.append(pace.other())
                Watch.started = now()

            def on_train_epoch_end(self, *_: Any) -> None:
                pace.epoch_s.append(now() - Watch.epoch)

        return Watch()


def fit(directory: Path, pace: Pace, *overrides: str) -> None:
    """``finetune.train`` in this process, watched by ``pace``."""
    import hydra
    import lightning
    from hydra.core.global_hydra import GlobalHydra

    from bench.whole_commands import COMMON
    from finetune import assembling, training
    from finetune.config import CONF_DIR
    from finetune.run_directory import RunDirectory

    GlobalHydra.instance().clear()
    given = [word for word in (*COMMON, *overrides) if word]
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=given)
    directory.mkdir(parents=True, exist_ok=True)
    build = assembling.make_callbacks
    watched = lambda *arguments: ((found := build(*arguments))[0] + [pace.callback()], found[1])  # noqa: E731
    assembling.make_callbacks = watched
    try:
        lightning.seed_everything(0, verbose=False)
        training.train(cfg, RunDirectory(directory), {"freeze": "bench", "head": "linear"})
    finally:
        assembling.make_callbacks = build
