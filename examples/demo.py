"""What transfer learning gains, on real pictures, in four minutes on two cores: ``make demo``.

Three networks learn the same 172 pictures of clip art in eight classes: one starts with ImageNet's weights, two start
from nothing. Only public commands are used, and each is printed before it runs, so that any of them can be typed again.
"""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
RUNS = Path("runs") / time.strftime("demo-%Y-%m-%d-%H-%M-%S")
COMMON = ("data.path=data/clipart", "data.image_size=128")


class Contestant(NamedTuple):
    """One run: its name in the table and in the folder, and what is asked of ``finetune.train``."""

    title: str
    folder: str
    overrides: tuple[str, ...]


CONTESTANTS = (
    Contestant(
        "EfficientNet-Lite0, fine-tuned from ImageNet",
        "finetuned",
        ("backbone=efficientnet_lite0", "trainer.max_epochs=10"),
    ),
    Contestant(
        "EfficientNet-Lite0, from scratch",
        "scratch",
        ("backbone=efficientnet_lite0", "backbone.weights=none", "trainer.max_epochs=12"),
    ),
    Contestant(
        "ResNet-50, from scratch",
        "resnet50-scratch",
        ("backbone=resnet50", "backbone.weights=none", "trainer.max_epochs=12"),
    ),
)


class Outcome(NamedTuple):
    """What a run's ``result.json`` says of it."""

    contestant: Contestant
    test_accuracy: float
    seconds: float


def main() -> int:
    """Run the contestants one after the other; the exit code of the first that fails, else 0."""
    outcomes: list[Outcome] = []
    for contestant in CONTESTANTS:
        run_directory = RUNS / contestant.folder
        arguments = ["finetune.train", *COMMON, *contestant.overrides, f"hydra.run.dir={run_directory}"]
        print(f"\n$ python -m {shlex.join(arguments)}", flush=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", *arguments], cwd=REPOSITORY, check=False).returncode
        if code != 0:
            return code
        result = json.loads((REPOSITORY / run_directory / "result.json").read_text(encoding="utf-8"))
        outcomes.append(Outcome(contestant, result["test"]["accuracy"], time.monotonic() - started))
    picture = draw(outcomes, REPOSITORY / RUNS / "demo.png")
    print(table(outcomes))
    print(f"The runs in one picture: {picture.relative_to(REPOSITORY)}")
    return 0


def table(outcomes: list[Outcome]) -> str:
    """The result in Markdown, and what to type next."""
    images = len(list((REPOSITORY / "data" / "clipart" / "test").glob("*/*.jpg")))
    best = RUNS / outcomes[0].contestant.folder
    lines = ["", f"| network | accuracy on {images} unseen pictures | whole command |", "|---|---|---|"]
    lines += [f"| {one.contestant.title} | {one.test_accuracy:.3f} | {one.seconds:.0f} s |" for one in outcomes]
    lines += [
        "",
        f"Look at {best / 'report.html'}, or name pictures of your own:",
        f"  python -m finetune.predict ckpt={best / 'checkpoints' / 'best.ckpt'} input=FILE_OR_FOLDER",
        "Where there is a network, ResNet-50 fetches its own ImageNet weights (elsewhere: backbone.weights=FILE):",
        "  python -m finetune.train data.path=data/clipart",
    ]
    return "\n".join(lines)


def draw(outcomes: list[Outcome], path: Path) -> Path:
    """Accuracy on the validation images by epoch, one line a contestant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for one, colour in zip(outcomes, ("#2b6cdb", "#d2501a", "#12806a"), strict=True):
        with (REPOSITORY / RUNS / one.contestant.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            accuracy = [float(row["val/accuracy"]) for row in csv.DictReader(file)]
        label = f"{one.contestant.title}: {one.test_accuracy:.2f} on test images"
        axes.plot(range(1, len(accuracy) + 1), accuracy, color=colour, label=label, linewidth=2)
    axes.set(xlabel="epoch", ylabel="accuracy on validation images", ylim=(0, 1))
    axes.grid(color="#dfe2e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=90, metadata={"Software": None})
    return path


if __name__ == "__main__":
    sys.exit(main())
