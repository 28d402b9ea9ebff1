"""What a run tells before it trains: the data that was found, the network, and what trains when."""

from __future__ import annotations

from finetune.data.table import SPLITS, Table
from finetune.freeze.schedule import FreezeSchedule
from finetune.network import Network


def data_lines(table: Table) -> list[str]:
    """Classes and images per split."""
    counts = {split: len(table.rows(split)) for split in SPLITS}
    images = ", ".join(f"{count:,} {split}" for split, count in counts.items() if count)
    shown = ", ".join(table.classes[:10]) + (f", ... {len(table.classes) - 10} more" if len(table.classes) > 10 else "")
    return [
        f"data      {table.root}: {table.source.layout}",
        f"images    {images}",
        f"classes   {len(table.classes)}: {shown}",
    ]


def network_lines(network: Network, name: str, weights: str, head: str) -> list[str]:
    """Architecture and origin of the weights."""
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return [
        f"backbone  {name}, {weights or 'random weights (from scratch)'}; {millions:.1f} M parameters",
        f"head      {head}",
    ]


def schedule_lines(network: Network, schedule: FreezeSchedule, name: str) -> list[str]:
    """One line per phase: epochs, stages, and how many parameters train."""
    sizes = {parameter_name: parameter.numel() for parameter_name, parameter in network.named_parameters()}
    lines = [f"schedule  {name}{', the head is solved first' if schedule.solve_head else ''}"]
    if schedule.max_epochs == 0:
        return lines
    for phase in schedule.phases:
        trained = sum(sizes[parameter_name] for parameter_name in schedule.trainable(phase.start))
        stages = [*phase.stages, *(f"{stage} (norms)" for stage in phase.norm_stages)]
        shown = "everything" if len(phase.stages) == len(schedule.stages) else ", ".join(stages)
        rate = "" if phase.lr_scale == 1 else f", learning rate x {phase.lr_scale:g}"
        lines.append(f"  epochs {phase.start + 1:>3}-{phase.end:<3} {trained:>12,} parameters: {shown}{rate}")
    return lines
