"""``optimizer.lr=auto``: a learning-rate range test before the fit (Smith 2017, arXiv:1506.01186).

Some 30 to 100 optimizer steps on training images, at rates that climb geometrically from 1e-5 to 10, until the loss is four
times its best. It is measured after every step on the same 32 training images, with the same noise: then the curve shows the
rate, and not the draw of the batch, which drowns it where a solved head begins near its optimum. The rate is where the loss
falls most steeply to a new low, over the logarithm of the rate (fastai's ``slope``, Lightning's ``suggestion``). fastai's
``valley`` is made for noisy curves: on this one, whose fall begins with the first step, its middle is a tenth of that.

Begins where the run begins: the solved head, what the first phase of the freeze schedule trains, its ``lr_scale``, the layer
decay, accumulation and clipping. Warm-up and decay then act on the rate as on one that is typed. ``freeze.l2_sp`` plays no
part: its pull is nothing at the start.

The run does not feel it: weights, statistics, flags, modes and torch's generator are put back; loader and optimizer are the
test's own. Costs at most two epochs' worth of steps (at least 30), and a pass over 32 images after each.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from finetune.data.module import ImageData
from finetune.errors import TrainingError
from finetune.model import ImageClassifier
from finetune.random_keys import derive_seed
from finetune.types import Batch

LOWEST, HIGHEST = 1e-5, 10.0
FEWEST, MOST = 30, 100
"""Steps."""
_MEASURED = 32
"""Images on which the loss is measured."""
_DIVERGED = 4.0
"""Times the least loss: the bound of fastai and Lightning."""


class Curve(NamedTuple):
    """The loss after a step at each rate, in the order of the steps."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    def write(self, path: Path) -> None:
        """As CSV: step, lr, loss."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("step", "lr", "loss"))
            writer.writerows((step, *point) for step, point in enumerate(zip(*self, strict=True)))


class Setting(NamedTuple):
    """How the run will take a step: where, in which precision, of how many batches, clipped to which norm."""

    device: torch.device
    bf16: bool
    accumulate: int
    clip: float | None


def find_lr(model: ImageClassifier, data: ImageData, setting: Setting) -> tuple[float, Curve]:
    """The rate for ``model`` and its curve; ``model`` is left as it was, but for ``optimizer_part.lr``, which is the rate.

    Raises:
        TrainingError: no rate lets the loss fall.
    """
    with _untouched(model, setting.device), closing(_epochs(model, data, setting.device)) as batches:
        model.network.freeze(model.schedule, 0)
        model.optimizer_part.lr = LOWEST
        curve = climb(_stepper(model, batches, setting), _rates(len(data.trial_loader(0)), setting.accumulate))
    model.optimizer_part.lr = float(f"{curve.rates[steepest(curve.losses)]:.2g}")
    return model.optimizer_part.lr, curve


def climb(step: Callable[[float], float], rates: Sequence[float]) -> Curve:
    """``step(rate)`` for rising rates until its loss diverges or is no number."""
    losses: list[float] = []
    for rate in rates:
        loss = step(rate)
        if not loss <= _DIVERGED * min([loss, *losses]):
            break
        losses.append(loss)
    return Curve(tuple(rates[: len(losses)]), tuple(losses))


def steepest(losses: Sequence[float]) -> int:
    """The position at which ``losses`` fall furthest below all before it.

    Raises:
        TrainingError: they never fall.
    """
    falls = -np.diff(np.minimum.accumulate(losses))
    if not falls.any():
        raise TrainingError(
            f"optimizer.lr=auto: the loss fell at none of {len(losses)} rates from {LOWEST:g} on, so there is none to take; "
            "type one, optimizer.lr=0.001"
        )
    return int(falls.argmax()) + 1


def _rates(batches: int, accumulate: int) -> list[float]:
    steps = min(max(2 * math.ceil(batches / accumulate), FEWEST), MOST)
    return [float(rate) for rate in np.geomspace(LOWEST, HIGHEST, steps)]


def _stepper(model: ImageClassifier, batches: Iterator[Batch], setting: Setting) -> Callable[[float], float]:
    """One optimizer step at a rate; gives the loss on the images that are measured."""
    optimizer, lr_scale = model.configure_optimizers(), model.schedule.phases[0].lr_scale
    measured = [next(batches)]
    while sum(len(batch.indices) for batch in measured) < _MEASURED and len(measured) < _MEASURED:
        measured.append(next(batches))
    sizes = [len(batch.indices) for batch in measured]
    training = itertools.chain(measured, batches)
    half = torch.autocast(setting.device.type, dtype=torch.bfloat16, enabled=setting.bf16)
    numbers = itertools.count(1)

    def step(rate: float) -> float:
        torch.manual_seed(derive_seed(model.seed, "noise", 0, next(numbers)))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"] * lr_scale
        optimizer.zero_grad()
        for batch in itertools.islice(training, setting.accumulate):
            with half:
                loss = model.batch_loss(batch)
            (loss / setting.accumulate).backward()
        model.configure_gradient_clipping(optimizer, setting.clip)
        optimizer.step()
        torch.manual_seed(derive_seed(model.seed, "noise", 0, 0))
        with torch.no_grad(), half:
            losses = [float(model.batch_loss(batch)) for batch in measured]
        return float(np.average(losses, weights=sizes))

    return step


def _epochs(model: ImageClassifier, data: ImageData, device: torch.device) -> Generator[Batch]:
    """Batches of the first phase's epochs, again and again; those of which no image could be read are left out."""
    for epoch in itertools.cycle(range(model.schedule.phases[0].end)):
        loader = data.trial_loader(epoch)
        try:
            for batch in loader:
                if len(batch.indices):
                    yield batch._replace(inputs=batch.inputs.to(device), targets=batch.targets.to(device))
        finally:
            loader.close()


@contextmanager
def _untouched(model: ImageClassifier, device: torch.device) -> Iterator[None]:
    """``model`` on ``device``, and afterwards as it was: weights, buffers, flags, modes, gradients, place, randomness."""
    home = model.device
    before: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.network.state_dict().items()}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            model.to(device)
            yield
        finally:
            model.to(home)
            model.network.load_state_dict(before)
            for parameter, flag in flags:
                parameter.requires_grad_(flag).grad = None
            for module, mode in modes:
                module.training = mode
