"""How much gradient reaches each stage, or each layer, from the first step on (``callback=gradient_flow``).

Writes ``gradient_flow.csv`` into the run directory: epoch, step, and one column of L2 norms per stage or layer, empty
while it is frozen; the epoch's means go to the trackers as ``gradient_norm/STAGE``. Norms are taken before clipping, in
the units of the loss. Step 0 is the network as it was initialised. For a network that does not learn: a gradient that
vanishes or explodes with depth shows here at once. Costs one pass over the gradients every ``every_n_steps`` steps.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from finetune.ranges import Count
from finetune.stages import divide

FILE_NAME = "gradient_flow.csv"


class GradientFlow(Callback):
    """Records norms of the gradient by ``level``: the stages of the network, or every weight with two dimensions."""

    def __init__(self, *, level: Literal["stage", "layer"] = "stage", every_n_steps: Count = 1) -> None:
        self.level = level
        self.every_n_steps = every_n_steps
        self.path = Path(FILE_NAME)
        self.groups: dict[str, list[nn.Parameter]] = {}
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the groups; a resumed run keeps the rows of the steps that it does not repeat."""
        network = pl_module.get_submodule("network")
        self.groups = parameter_groups(network, self.level)
        self.path = Path(trainer.default_root_dir) / FILE_NAME
        self.rows = [row for row in read(self.path) if row["step"] < trainer.global_step] if self.path.exists() else []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Record; Lightning calls this before it clips."""
        if trainer.global_step % self.every_n_steps == 0:
            norms = gradient_norms(self.groups)
            self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **norms})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, and hand the epoch's means to the trackers."""
        recorded = [row for row in self.rows if row["epoch"] == trainer.current_epoch]
        for name in self.groups:
            norms = [row[name] for row in recorded if row[name] is not None]
            if norms:
                pl_module.log(f"gradient_norm/{name}", sum(norms) / len(norms))
        if trainer.is_global_zero:
            self._write()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """A run that breaks keeps what was recorded: this is when it is wanted."""
        if trainer.is_global_zero and self.rows:
            self._write()

    def _write(self) -> None:
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["epoch", "step", *self.groups])
            writer.writeheader()
            for row in self.rows:
                writer.writerow(
                    {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
                )


def parameter_groups(network: nn.Module, level: Literal["stage", "layer"]) -> dict[str, list[nn.Parameter]]:
    """Parameters by stage, or each weight of a convolution or linear layer alone, from input to output."""
    parameters = dict(network.named_parameters())
    if level == "stage":
        return {stage.name: [parameters[name] for name in stage.parameters] for stage in divide(network)}
    weights = {name: value for name, value in parameters.items() if value.ndim >= 2}
    return {name.removeprefix("backbone.").removesuffix(".weight"): [value] for name, value in weights.items()}


def gradient_norms(groups: dict[str, list[nn.Parameter]]) -> dict[str, float | None]:
    """L2 norm of each group's gradient, None where nothing in it has one."""
    norms: dict[str, Tensor | None] = {}
    for name, parameters in groups.items():
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norms[name] = torch.nn.utils.get_total_norm(gradients) if gradients else None
    return {name: None if norm is None else float(norm) for name, norm in norms.items()}


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``gradient_flow.csv``; a cell that is empty or not a finite number is None."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {key: int(cell) if key in ("epoch", "step") else _finite(cell) for key, cell in row.items()}
            for row in csv.DictReader(file)
        ]


def _finite(cell: str) -> float | None:
    value = float(cell) if cell else math.nan
    return value if math.isfinite(value) else None
