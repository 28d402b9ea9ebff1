"""``sweep=optuna``: a study that proposes trials, learns from them, and survives being killed.

Optuna is used as a library: the Hydra plugin (hydra-optuna-sweeper 1.3) holds it at version 2, keeps no record of which
trial runs where, and so can neither continue a trial nor prune one. The study lies in SQLite beside the trials, or in
PostgreSQL for several machines. Trial 0 is the configuration as it stands, so that a search never ends below it.

A trial that was running when the sweep was killed goes on in its directory. Akiba et al., 2019, arXiv:1907.10902.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from finetune.errors import ConfigError
from finetune.redact import redact_text
from finetune.sweep.engines import ENGINES
from finetune.sweep.job import Job, Outcome
from finetune.sweep.naming import job_names
from finetune.sweep.pruner import build_pruner, optuna
from finetune.sweep.record import Record
from finetune.sweep.run import Request, make_jobs
from finetune.sweep.space import Dimension, shown

log = logging.getLogger(__name__)
STORAGE, STUDY, TRIAL = "FINETUNE_OPTUNA_STORAGE", "FINETUNE_OPTUNA_STUDY", "FINETUNE_OPTUNA_TRIAL"
PRUNED = "pruned_after_epoch"
_PRUNING = "+callback.pruning._target_=finetune.callback.pruning.Pruning"


def search(request: Request, space: Sequence[Dimension], record: Record, sweep_id: str) -> None:
    """Run trials until ``sweep.trials`` of the study have ended, or ``sweep.max_hours`` are over."""
    storage = request.sweep["storage"] or f"sqlite:///{record.directory / 'optuna.db'}"
    study = _study(request, storage, sweep_id)
    if len(study.trials) == 0:
        _enqueue_defaults(study, space, request)
    hours = request.sweep["max_hours"]
    stop_at = None if hours is None else time.monotonic() + 3600 * hours
    batch = _at_once(request)
    _record_ended(study, request, record, space)
    trials = _left_running(study, record)
    while True:
        ended = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        room = request.sweep["trials"] - ended - len(trials)
        trials += [_ask(study, space) for _ in range(min(batch - len(trials), room))]
        if not trials or (stop_at is not None and time.monotonic() > stop_at):
            break
        jobs = _jobs(request, record, storage, study, trials, space)
        record.add_jobs(jobs)
        by_number = {trial.number: trial for trial in trials}
        for outcome in ENGINES[request.engine](jobs, request.options, record.directory):
            _tell(study, by_number[outcome.number], outcome)
            record.add(outcome)
        trials = []
    _say_result(study)


def _study(request: Request, storage: str, sweep_id: str) -> Any:
    package = optuna()
    package.logging.set_verbosity(package.logging.WARNING)
    sweep = request.sweep
    direction = sweep["direction"]
    if direction == "auto":
        direction = "minimize" if str(request.config.get("monitor", "")).endswith(("loss", "ece")) else "maximize"
    name = sweep["study"] or f"finetune-{sweep_id}"
    try:
        existing = package.get_all_study_names(storage)
        if name in existing and not (sweep["resume"] or sweep["study"]):
            raise ConfigError(f"study {name} is there already; sweep.resume=true goes on with it")
        done = len(package.load_study(study_name=name, storage=storage).trials) if name in existing else 0
        return package.create_study(
            study_name=name,
            storage=storage,
            sampler=package.samplers.TPESampler(seed=sweep["seed"] + done, n_startup_trials=sweep["warmup_trials"]),
            pruner=build_pruner(sweep["pruner"], sweep["warmup_trials"], sweep["warmup_epochs"]),
            direction=direction,
            load_if_exists=True,
        )
    except (ImportError, ValueError) as error:
        raise ConfigError(f"sweep.storage={redact_text(storage)}: {error}") from error
    except package.exceptions.StorageInternalError as error:
        raise ConfigError(f"sweep.storage={redact_text(storage)} cannot be used: {error.__cause__ or error}") from error


def _distribution(dimension: Dimension) -> Any:
    distributions = optuna().distributions
    if dimension.interval is None:
        return distributions.CategoricalDistribution(dimension.values)
    low, high, log_scale, whole = dimension.interval
    if whole:
        return distributions.IntDistribution(int(low), int(high), log=log_scale)
    return distributions.FloatDistribution(low, high, log=log_scale)


def _ask(study: Any, space: Sequence[Dimension]) -> Any:
    return study.ask({dimension.key: _distribution(dimension) for dimension in space if not dimension.is_fixed})


def _overrides(trial: Any, space: Sequence[Dimension]) -> list[str]:
    overrides = []
    for dimension in space:
        value: Any = dimension.values[0] if dimension.is_fixed else trial.params[dimension.key]
        if dimension.interval is not None:
            value = shown(value, whole=dimension.interval.whole)
        overrides.append(f"{dimension.key}={value}")
    return overrides


def _enqueue_defaults(study: Any, space: Sequence[Dimension], request: Request) -> None:
    """Make the first trial what runs without a search, where the space contains it."""
    parameters: dict[str, Any] = {}
    for dimension in space:
        if dimension.is_fixed:
            continue
        value = request.choices.get(dimension.key, _select(request.config, dimension.key))
        if dimension.interval is None:
            value = next((text for text in dimension.values if text == str(value) or _same_number(text, value)), None)
        elif not isinstance(value, int | float) or not dimension.interval.low <= value <= dimension.interval.high:
            value = None
        if value is not None:
            parameters[dimension.key] = value
    study.enqueue_trial(parameters)


def _same_number(text: str, value: Any) -> bool:
    try:
        return float(text) == float(value)
    except (TypeError, ValueError):
        return False


def _select(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _jobs(
    request: Request, record: Record, storage: str, study: Any, trials: Sequence[Any], space: Sequence[Dimension]
) -> list[Job]:
    jobs: list[Job] = []
    for trial in trials:
        overrides = _overrides(trial, space)
        swept = [text for text, dimension in zip(overrides, space) if not dimension.is_fixed]
        name = f"{trial.number:03d},{job_names([swept])[0]}"
        trial.set_user_attr("directory", str(record.directory / name))
        environment = {STORAGE: storage, STUDY: study.study_name, TRIAL: str(trial._trial_id)}
        reports = [_PRUNING, f"+callback.pruning.pruner={request.sweep['pruner']}",
                   f"+callback.pruning.warmup_trials={request.sweep['warmup_trials']}",
                   f"+callback.pruning.warmup_epochs={request.sweep['warmup_epochs']}",
                   "+callback.pruning.monitor=${monitor}"]  # fmt: skip
        if request.sweep["pruner"] == "none":
            reports = []
        jobs += make_jobs(
            request,
            record.directory,
            [[*overrides, *reports]],
            first=trial.number,
            names=[name],
            environments=[environment],
        )
    return jobs


def _left_running(study: Any, record: Record) -> list[Any]:
    """Trials of this directory that were running when the sweep ended; those of other machines are theirs."""
    package = optuna()
    return [
        package.trial.Trial(study, trial._trial_id)
        for trial in study.get_trials(deepcopy=False, states=[package.trial.TrialState.RUNNING])
        if os.path.dirname(trial.user_attrs.get("directory", "")) == str(record.directory)  # noqa: PTH120
    ]


def _record_ended(study: Any, request: Request, record: Record, space: Sequence[Dimension]) -> None:
    """Rows of the trials that ended before."""
    for trial in study.get_trials(deepcopy=False):
        directory = trial.user_attrs.get("directory", "")
        if not trial.state.is_finished() or os.path.dirname(directory) != str(record.directory):  # noqa: PTH120
            continue
        (job,) = make_jobs(
            request,
            record.directory,
            [_overrides(trial, space)],
            first=trial.number,
            names=[os.path.basename(directory)],  # noqa: PTH119
        )
        record.add_jobs([job])
        record.add_done(job)


def _tell(study: Any, trial: Any, outcome: Outcome) -> None:
    """Report how the trial ended. An interrupted one stays as it is, and is continued with ``sweep.resume=true``."""
    states = optuna().trial.TrialState
    if outcome.status in ("interrupted", "pending"):
        return
    attributes = study._storage.get_trial(trial._trial_id).user_attrs
    if outcome.status == "failed" or outcome.value is None:
        study.tell(trial, state=states.FAIL)
    elif PRUNED in attributes:
        study.tell(trial, state=states.PRUNED)
    else:
        study.tell(trial, outcome.value)


def _at_once(request: Request) -> int:
    """Trials that are proposed together: as many as run at the same time, where that is known."""
    n_jobs = int(request.options.get("n_jobs", request.sweep["trials_at_once"]))
    return len(os.sched_getaffinity(0)) if n_jobs == -1 else max(1, n_jobs)


def _say_result(study: Any) -> None:
    trials: Iterable[Any] = study.get_trials(deepcopy=False)
    ended = [trial for trial in trials if trial.value is not None and trial.state.name == "COMPLETE"]
    pruned = sum(trial.state.name == "PRUNED" for trial in trials)
    if ended:
        best = study.best_trial
        found = " ".join(f"{key}={value}" for key, value in best.params.items())
        log.info("best of %d trials (%d pruned): %.4f with %s", len(ended) + pruned, pruned, best.value, found)
