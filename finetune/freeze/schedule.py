"""Freeze/unfreeze schedules as data: which stages train is a pure function of the epoch.

A schedule is a list of phases. Each names the stages that train (``head``, ``layer*``, ``@-1`` for the last stage of the
backbone, ``*:norm`` for the affine parameters of normalisation layers only), how long it lasts, and how the learning
rate is scaled. No state is kept, so a resumed run cannot end up in another phase than the uninterrupted one
(Lightning's ``BaseFinetuning`` does: pytorch-lightning #21901).

    freeze.phases:
      - {train: [head], epochs: 0.3}                            # whole numbers are epochs, fractions a share of the run
      - {train: ["*"], lr_scale: 0.3, rewarm_epochs: 1}         # the last phase runs to the end

Sources: linear probing then fine-tuning, Kumar et al. 2022 (arXiv:2202.10054); gradual unfreezing, Howard and Ruder 2018
(arXiv:1801.06146); surgical fine-tuning, Lee et al. 2023 (arXiv:2210.11466); L2-SP, Li et al. 2018 (arXiv:1802.01483).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune.errors import ConfigError, combine
from finetune.stages import NORM_SUFFIX, Stage, select

BatchNormPolicy = Literal["live", "frozen"]
_PHASE_KEYS = {"train", "epochs", "until", "lr_scale", "rewarm_epochs", "batch_norm"}


@dataclass(frozen=True)
class Phase:
    """Epochs ``start`` to ``end`` (exclusive) of a run, and what trains in them; names are full parameter names."""

    start: int
    end: int
    stages: tuple[str, ...]
    norm_stages: tuple[str, ...]
    lr_scale: float
    rewarm_epochs: float
    batch_norm: BatchNormPolicy

    def __contains__(self, epoch: int) -> bool:
        return self.start <= epoch < self.end


class FreezeSchedule:
    """Phases over named stages; ``phase(epoch)`` says what trains.

    Args:
        stages: the network's stages, from input to output.
        max_epochs: length of the run in epochs.
        phases: one mapping each, with ``train`` (patterns), ``epochs`` or ``until`` (all but the last; an integer is a
            number of epochs, a fraction below 1 a share of the run), ``lr_scale`` (1.0), ``rewarm_epochs`` (0.0: the
            rate climbs linearly from zero over so many epochs when the phase begins) and ``batch_norm``: ``live``
            statistics or ``frozen`` ones.
        l2_sp: strength of the pull of the backbone towards the weights it started from (L2-SP); 0 switches it off.
        stage: what ``{stage}`` means in a phase's patterns.
        solve_head: a linear head is solved before the first epoch, and leading phases that train only the head fall
            away; read by ``without_head_phases``.
        batch_norm: of phases that do not say; null means ``live``.

    Raises:
        ConfigError: a phase is malformed, empty at this run length, or addresses a stage that is not there; every
            problem is listed.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        max_epochs: int,
        *,
        phases: list[dict[str, Any]],
        l2_sp: float = 0.0,
        stage: str | None = None,
        solve_head: bool = False,
        batch_norm: Literal["live", "frozen"] | None = None,
    ) -> None:
        self.stages = stages
        self.max_epochs = max_epochs
        self.l2_sp = l2_sp
        self.solve_head = solve_head
        own = {} if batch_norm is None else {"batch_norm": batch_norm}
        phases = [{**own, **fields, "train": _fill(fields.get("train"), stage)} for fields in phases]
        problems = _malformed(phases)
        if l2_sp < 0:
            problems.append(ConfigError(f"freeze.l2_sp={l2_sp}: a strength of 0 or more is expected"))
        if problems:
            raise combine(problems)
        ends = _ends(phases, max_epochs)
        self.phases = tuple(
            _phase(fields, start, end, stages) for fields, start, end in zip(phases, [0, *ends[:-1]], ends, strict=True)
        )

    def phase(self, epoch: int) -> Phase:
        """The phase of ``epoch`` (from 0); the last one also holds beyond the end of the run."""
        return next((phase for phase in self.phases if epoch in phase), self.phases[-1])

    def lr_factor(self, epoch_progress: float) -> float:
        """Factor on the learning rate after ``epoch_progress`` epochs (1.5 is the middle of the second epoch)."""
        phase = self.phase(int(epoch_progress))
        into = epoch_progress - phase.start
        climbing = phase.start > 0 and into < phase.rewarm_epochs
        return phase.lr_scale * (into / phase.rewarm_epochs if climbing else 1.0)

    def trainable(self, epoch: int) -> frozenset[str]:
        """Full names of the parameters that train in ``epoch``."""
        phase = self.phase(epoch)
        names = [name for stage in self.stages if stage.name in phase.stages for name in stage.parameters]
        names += [name for stage in self.stages if stage.name in phase.norm_stages for name in stage.norm_parameters]
        return frozenset(names)

    def frozen_modules(self, epoch: int) -> frozenset[str]:
        """Full names of the modules that stay in eval mode in ``epoch``: those of every stage not wholly trained."""
        phase = self.phase(epoch)
        return frozenset(name for stage in self.stages if stage.name not in phase.stages for name in stage.modules)


def without_head_phases(phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The phases left to train once the head is solved: all from the first that trains more than the head.

    That one is then the first of the run, and warms up as the scheduler says.
    """
    begin = next((number for number, fields in enumerate(phases) if list(fields.get("train") or []) != ["head"]), None)
    if begin is None:
        return []
    first = {key: value for key, value in phases[begin].items() if key != "rewarm_epochs" or begin == 0}
    return [first, *phases[begin + 1 :]]


def _fill(patterns: Any, stage: str | None) -> Any:
    """Put ``stage`` in the place of ``{stage}``; what is no list of strings is left for the check to name."""
    if stage is None or not isinstance(patterns, Sequence) or isinstance(patterns, str):
        return patterns
    return [str(pattern).replace("{stage}", stage) for pattern in patterns]


def _malformed(phases: Sequence[dict[str, Any]]) -> list[ConfigError]:
    """Everything wrong with the phases that can be seen without the network."""
    if not phases:
        return [ConfigError("freeze.phases is empty; at least one phase is expected, for example [{train: ['*']}]")]
    problems: list[ConfigError] = []
    for number, fields in enumerate(phases):
        where = f"freeze.phases[{number}]"
        known = ", ".join(sorted(_PHASE_KEYS))
        problems.extend(
            ConfigError(f"{where} has an unknown key {key!r}; known are {known}") for key in fields.keys() - _PHASE_KEYS
        )
        if not fields.get("train") or isinstance(fields["train"], str):
            problems.append(ConfigError(f"{where}.train={fields.get('train')!r}: a list of stage patterns is expected"))
        limits = [key for key in ("epochs", "until") if fields.get(key) is not None]
        last = number == len(phases) - 1
        if last and limits:
            problems.append(ConfigError(f"{where} is the last phase and runs to the end; remove {limits[0]!r}"))
        if not last and len(limits) != 1:
            problems.append(ConfigError(f"{where} needs one of 'epochs' and 'until'; it has {limits or 'neither'}"))
        problems.extend(
            ConfigError(f"{where}.{key}={fields[key]!r}: a positive number is expected")
            for key in limits
            if isinstance(fields[key], bool) or not isinstance(fields[key], int | float) or not fields[key] > 0
        )
        problems.extend(
            ConfigError(
                f"{where}.{key}={fields[key]!r}: a whole number of epochs, or a share of the run below 1, is expected"
            )
            for key in limits
            if isinstance(fields[key], float) and fields[key] > 1 and not fields[key].is_integer()
        )
        if number == 0 and fields.get("rewarm_epochs"):
            problems.append(ConfigError(f"{where}.rewarm_epochs: the first phase has scheduler.warmup_epochs instead"))
        for key in ("lr_scale", "rewarm_epochs"):
            value = fields.get(key, 0.0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                problems.append(ConfigError(f"{where}.{key}={value!r}: a number of 0 or more is expected"))
        if fields.get("batch_norm", "live") not in ("live", "frozen"):
            problems.append(ConfigError(f"{where}.batch_norm={fields['batch_norm']!r}: 'live' or 'frozen' is expected"))
    return problems


def _ends(phases: Sequence[dict[str, Any]], max_epochs: int) -> list[int]:
    """The epoch before which each phase ends, strictly increasing to ``max_epochs``.

    A share is rounded so that its own phase and every later one keep at least an epoch, where there are enough.
    """
    ends: list[int] = []
    position = 0.0
    for later, fields in zip(range(len(phases) - 1, 0, -1), phases, strict=False):
        value = fields.get("until", fields.get("epochs"))
        assert value is not None
        length = value * max_epochs if isinstance(value, float) and value < 1 else float(value)
        position = length if fields.get("until") is not None else position + length
        earliest = (ends[-1] if ends else 0) + 1
        ends.append(max(min(round(position), max_epochs - later), earliest) if _is_share(value) else round(position))
    ends.append(max_epochs)
    starts = [0, *ends[:-1]]
    if max_epochs > 0 and any(end <= start for start, end in zip(starts, ends, strict=True)):
        spans = ", ".join(f"{start}-{end}" for start, end in zip(starts, ends, strict=True))
        raise ConfigError(
            f"trainer.max_epochs={max_epochs} leaves no room for the {len(phases)} phases of this freeze schedule "
            f"(epochs {spans}); give more epochs, or take freeze=none or freeze=head_only"
        )
    return ends


def _is_share(value: float) -> bool:
    """``0.3`` is a share of the run; ``1`` and ``1.0`` are one epoch."""
    return value < 1


def _phase(fields: dict[str, Any], start: int, end: int, stages: tuple[Stage, ...]) -> Phase:
    whole: list[str] = []
    norm: list[str] = []
    for pattern in fields["train"]:
        selected = select(pattern, stages)
        of_norms = pattern.endswith(NORM_SUFFIX)
        if of_norms and not any(stage.norm_parameters for stage in stages if stage.name in selected):
            raise ConfigError(f"freeze: {pattern!r} matches no normalisation layer in {', '.join(selected)}")
        (norm if of_norms else whole).extend(selected)
    return Phase(
        start=start,
        end=end,
        stages=tuple(dict.fromkeys(whole)),
        norm_stages=tuple(name for name in dict.fromkeys(norm) if name not in whole),
        lr_scale=float(fields.get("lr_scale", 1.0)),
        rewarm_epochs=float(fields.get("rewarm_epochs", 0.0)),
        batch_norm=fields.get("batch_norm", "live"),
    )
