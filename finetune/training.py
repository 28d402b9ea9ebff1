"""One training run from configuration to result, top to bottom: data, network, fit, final evaluation, report."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from finetune import finish, refit
from finetune.assembling import Parts, assemble
from finetune.callback import memory
from finetune.callback.first_step import FirstStep
from finetune.checkpoint import newest_whole, read_payload, sweep_litter, weights_payload, write_checkpoint
from finetune.choosing import put_back
from finetune.errors import CheckpointError, Interrupted
from finetune.lr_range import Setting, find_lr
from finetune.processes import is_first
from finetune.run_directory import RunDirectory
from finetune.settling import record_lr
from finetune.solved_head import Solved, solve_head
from finetune.trainer import precision_of

log = logging.getLogger(__name__)
Result = dict[str, Any]


def train(
    cfg: DictConfig,
    run: RunDirectory,
    choices: Mapping[str, str],
    given: Collection[str] | None = None,
    age_s: float = 0.0,
) -> Result:
    """Train as configured in the folder of ``run``; ``choices`` names the options behind groups, for the terminal.

    ``given`` are the keys that the recipe leaves alone; None: the whole configuration stands as it is. ``age_s`` is how
    long a command's process has lived, for the time to its first step.

    ``result.json`` is there from the start, whatever happens.

    Raises:
        FinetuneError: the input is wrong or the work failed; the result's status is ``failed``.
        Interrupted: a signal asked to leave; the status is ``interrupted`` and the run can be resumed.
    """
    started = time.monotonic()
    if not is_first():
        logging.getLogger().setLevel(logging.WARNING)
    run.write_result("running")
    loggers: list[Logger] = []
    status = "failed"
    try:
        result = _train(cfg, run, choices, given, loggers, started, FirstStep(started - age_s))
        status = "completed"
        return result
    except (Interrupted, KeyboardInterrupt):
        status = "interrupted"
        run.write_result("interrupted", seconds={"total": time.monotonic() - started})
        log.info("interrupted; continue with: 'hydra.run.dir=%s' resume=auto", run.root)
        if not is_first():  # Lightning's launcher kills the first process when a helper of it ends with a code
            return {"status": status}
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        run.write_result("failed", error=reason, seconds={"total": time.monotonic() - started})
        raise
    finally:
        for logger in loggers:
            if hasattr(logger, "finish"):
                logger.finish(status)


def _train(
    cfg: DictConfig,
    run: RunDirectory,
    choices: Mapping[str, str],
    given: Collection[str] | None,
    loggers: list[Logger],
    started: float,
    first_step: FirstStep,
) -> Result:
    resume_from = find_checkpoint(cfg.resume, run)
    parts = assemble(cfg, run, choices, given, loggers, resume_from)
    refit.check(cfg, parts.trainer.world_size)
    if is_first():  # not before everything is known to be right, and loaded: it may come from this same folder
        begin(cfg.resume, resume_from, run)
    with parts.interruption.handling():
        prepared = time.monotonic()
        found: Solved | None = None
        if resume_from is None and parts.model.schedule.solve_head:
            found = solve_head(parts.model, parts.data, cfg.seed, cfg.monitor)
        if parts.cfg.optimizer.lr == "auto":
            choose_lr(parts, run)
        if found is not None and found.held_out is not None and is_first():
            payload = weights_payload(parts.model.card, parts.model.network)
            payload["finetune"] |= {"held_out": found.held_out._asdict(), "strength": found.strength}
            write_checkpoint(payload, run.probe)
        parts.trainer.callbacks.append(first_step)  # type: ignore[attr-defined]
        if parts.model.schedule.max_epochs > 0:
            fit(parts, resume_from)
        if not is_first():
            return {"status": "completed"}
        fitted = time.monotonic()
        seconds = {"prepare": prepared - started, "fit": fitted - prepared}
        again = partial(refit.refit, parts, run) if cfg.refit else None
        return finish.finish(parts, run, seconds, first_step.seconds, again)


def choose_lr(parts: Parts, run: RunDirectory) -> None:
    """``optimizer.lr=auto``: find the rate, and go on as if it had been typed."""
    if parts.model.schedule.max_epochs == 0:
        log.info("lr        auto: the solved head takes no epoch, so there is no rate to find")
        return
    started = time.monotonic()
    trainer = parts.trainer
    setting = Setting(
        device=trainer.strategy.root_device,
        bf16=precision_of(parts.cfg).startswith("bf16"),
        accumulate=trainer.accumulate_grad_batches,
        clip=trainer.gradient_clip_val,
    )
    with explained(parts):
        lr, curve = find_lr(parts.model, parts.data, setting)
    curve.write(run.lr_range)
    steps = len(curve.rates)
    reason = f"found by a range test of {steps} steps from {curve.rates[0]:.0e} to {curve.rates[-1]:.0e}"
    log.info("lr        %g, %s, %.1f s; curve in %s", lr, reason, time.monotonic() - started, run.lr_range.name)
    record_lr(parts.cfg, parts.model.card, run, lr, reason)


@contextmanager
def explained(parts: Parts) -> Iterator[None]:
    """Out of memory becomes a message that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        raise memory.explain(error, parts.data.images_at_once, parts.data.options.image_size) from error


def fit(parts: Parts, resume_from: Path | None) -> None:
    """Train."""
    try:
        with explained(parts):
            parts.trainer.fit(parts.model, datamodule=parts.data, ckpt_path=resume_from, weights_only=True)
    finally:
        for loader in (parts.trainer.train_dataloader, parts.trainer.val_dataloaders):
            if loader is not None:
                loader.close()


def begin(resume: str | None, resume_from: Path | None, run: RunDirectory) -> None:
    """Let no weights of an earlier run in this folder pass for this run's own."""
    if resume_from is not None:
        put_back(run)
    elif resume == "auto" and not run.last.exists():  # it was interrupted early, or is a solved head: done again
        put_back(run)
        run.probe.unlink(missing_ok=True)
    elif (aside := run.set_aside()) is not None:
        log.warning("run       %s has checkpoints of an earlier run; they are in %s now", run.root, aside.name)


def find_checkpoint(resume: str | None, run: RunDirectory) -> Path | None:
    """The checkpoint to go on from: of this run directory (``auto``) or at the given path.

    Raises:
        CheckpointError: the path is no whole checkpoint, or holds weights only.
    """
    if resume is None:
        return None
    sweep_litter(run.checkpoints)
    if resume == "auto":
        found, passed_over = newest_whole(run.checkpoints, ("last.ckpt", "previous.ckpt"))
        for reason in passed_over:
            log.warning("resume=auto passes over %s", reason)
        log.info("resume    %s", f"from {found}" if found else f"nothing to resume in {run.root}: from the beginning")
        return found
    path = Path(resume).expanduser()
    if "optimizer_states" not in read_payload(path):
        raise CheckpointError(
            f"resume={resume} holds the weights of one moment, not the state of a run; take last.ckpt beside it"
        )
    wanted = [run.probe] if run.best.exists() else [run.probe, run.best, run.tuned]
    for other in wanted:
        beside = path.with_name(other.name)
        if beside.exists() and not other.exists():
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(beside, other)
    log.info("resume    from %s", path)
    return path
