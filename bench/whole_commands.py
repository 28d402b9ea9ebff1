"""Rows that compare whole commands: the probe cold and warm, its memory, a sweep, the start of a command."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from bench import bare
from bench.measure import Cost, alternate, command, median_cost
from bench.table import Row

COMMON = (
    "backbone.weights=none",
    "freeze=head_only",
    "freeze.solve_head=false",  # epochs are what is measured here
    "data.batch_size=32",
    "logger=csv",
    "report=none",
    "data.val_fraction=0.3",
)
_numbers = itertools.count()


def train(images: Path, work: Path, *overrides: str, cache: Path) -> tuple[Cost, Path]:
    """One ``finetune.train`` in a process of its own; its store, and what it knows about files, lie below ``cache``."""
    run = work / f"run{next(_numbers)}"
    words = ("-m", "finetune.train", f"data.path={images}", *COMMON, *overrides, f"hydra.run.dir={run}")
    return command(*words, environment={"XDG_CACHE_HOME": str(cache)}), run


def probe(images: Path, work: Path, repeats: int) -> Iterator[Row]:
    """Cold against a script by hand, warm against a run of one epoch, a plain Lightning loop, peak memory."""
    caches = [work / f"cold{number}" for number in range(repeats)]
    fresh = iter(caches)
    ours, script = (
        median_cost(costs)
        for costs in alternate(
            repeats,
            lambda: train(images, work, "trainer.max_epochs=20", cache=next(fresh))[0],
            lambda: command("-m", "bench.bare", "probe", str(images)),
        )
    )
    note = f"{ours.seconds:.1f} s / {script.seconds:.1f} s"
    yield Row(
        "linear probe, 20 epochs, cold store / imports + one pass + head by hand",
        ours.seconds / script.seconds,
        "<= 1.25",
        note,
    )
    note = f"{ours.peak_mib:.0f} MiB / {script.peak_mib:.0f} MiB"
    yield Row("peak memory of the probe / the script's", ours.peak_mib / script.peak_mib, "<= 1.3", note)

    twenty, one = (
        median_cost(costs)
        for costs in alternate(
            repeats,
            lambda: train(images, work, "trainer.max_epochs=20", cache=caches[0])[0],
            lambda: train(images, work, "trainer.max_epochs=1", cache=caches[0])[0],
        )
    )
    beyond = (twenty.seconds - one.seconds) * 20 / 19  # a run has at least one epoch
    note = f"({twenty.seconds:.1f} s - {one.seconds:.1f} s of one epoch) * 20 / 19"
    yield Row("the same with a warm store: seconds beyond a run of no epochs", beyond, "<= 2", note)

    plain = bare.lightning_s_per_image(images) * sum(1 for _ in images.rglob("*.jpg"))
    note = f"one epoch over all images {plain:.0f} s, times 20, / {ours.seconds:.1f} s for the whole command"
    yield Row("plain Lightning loop, 20 epochs / ours", 20 * plain / ours.seconds, ">= 10", note)


def sweep(images: Path, work: Path) -> Iterator[Row]:
    """Eight jobs over head and learning rate, two processes at a time: how often the backbone is computed."""
    words = ("trainer.max_epochs=5", "backbone.name=resnet18", "data.image_size=64")
    _, single = train(images, work, *words, cache=work / "single")
    directory = work / "sweep"
    command(
        "-m",
        "finetune.train",
        "-m",
        f"data.path={images}",
        *COMMON,
        *words,
        "head=linear,mlp",
        "optimizer.lr=0.001,0.003,0.01,0.03",
        "hydra.launcher.n_jobs=2",
        f"hydra.sweep.dir={directory}",
        environment={"XDG_CACHE_HOME": str(work / "swept")},
    )
    logs = sorted(directory.rglob("train.log"))
    jobs, alone = sum(computed(log) for log in logs), computed(single / "train.log")
    done = sum(json.loads(file.read_text())["status"] == "completed" for file in directory.rglob("result.json"))
    note = f"{jobs} / {alone} images through the backbone, {done} jobs of 8 completed; ResNet-18 at 64 px"
    yield Row("eight-job sweep, two processes at once / one job, backbone passes", jobs / alone, "<= 1.5", note)


def computed(log: Path) -> int:
    """Images that the run of this log sent through the backbone."""
    said = re.findall(r"features  (\d+) of (\d+) from cache", log.read_text())
    return sum(int(total) - int(there) for there, total in said)


def start(repeats: int) -> Iterator[Row]:
    """``--help`` and a configuration error against a Hydra application that imports nothing else."""

    def median_s(costs: list[Cost]) -> float:
        return median_cost(costs).seconds

    asked, wrong, hydra = alternate(
        repeats,
        lambda: command("-m", "finetune.train", "--help"),
        lambda: command("-m", "finetune.train", "data.path=nowhere", "nonsense=1", expected=2),
        lambda: command("-m", "bench.bare", "hydra"),
    )
    for name, costs in (("--help", asked), ("a configuration error", wrong)):
        note = f"{median_s(costs):.2f} s / {median_s(hydra):.2f} s"
        yield Row(f"{name} / a bare Hydra application", median_s(costs) / median_s(hydra), "<= 1.5", note)
