"""Training one trial: its runs one after the other, each an ordinary run that goes on where it was left."""

from __future__ import annotations

import errno
import math
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from treadle.engine.events import Hook, Order
from treadle.engine.interrupts import Interrupts
from treadle.errors import TreadleError, UsageError, nearest, one_line
from treadle.files import number
from treadle.hooks.monitor import monitored
from treadle.recipes.registry import Recipe
from treadle.runs.metrics import read_metrics
from treadle.runs.run import is_run, read_summary
from treadle.sinks.table import make
from treadle.sweeps.search import Dimension
from treadle.sweeps.trials import OUTPUT, Trial

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer
    from treadle.sinks.base import Sink

PRUNED = "pruned"
"""The reason in the summary of a run that was ended because others did better."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What is the disk's fault, and not the trial's."""


class Stop:
    """Asked from anywhere, ends a worker after the step under way; what it trains can be resumed.

    `reason` is empty until then; `exit_code` is 130 or 143 where it was a signal.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.exit_code = 0
        self.trainer: Trainer | None = None

    def ask(self, reason: str) -> None:
        """Stop."""
        self.reason = self.reason or reason
        trainer = self.trainer
        if trainer is not None:
            trainer.stop(reason)

    @contextmanager
    def heeded_by(self, trainer: Trainer) -> Iterator[None]:
        """Within, the trainer stops when it is asked, by signals too where this is the main thread."""
        with ExitStack() as stack:
            self.trainer = trainer
            if self.reason:
                trainer.stop(self.reason)
            interrupts = None
            if threading.current_thread() is threading.main_thread():
                interrupts = stack.enter_context(Interrupts(trainer))
            try:
                yield
            finally:
                self.trainer = None
                if interrupts is not None and interrupts.signal is not None:
                    self.reason, self.exit_code = self.reason or "interrupted", interrupts.exit_code


class Pruning(Hook):
    """Ends a run, as finished and with the reason "pruned", where `report` says so of what a validation came to.

    Validations are counted, as trials with other batch sizes have other steps. How many there have been is read from
    what the run has logged, so there is nothing to save: a run with this hook has the digest of one without.

    Args:
        metric: what is reported.
        report: is told the count, from 1, and the value; returns whether to end the run.
    """

    # After the hooks that add metrics.
    order: ClassVar[int] = Order.LATE

    def __init__(self, metric: str, report: Callable[[int, float], bool]) -> None:
        self.metric = metric
        self.report = report
        self.trouble: TreadleError | None = None
        """What kept a value from being reported: it stops the run, resumable."""
        self._steps: set[int] | None = None
        """At which the run was validated, once that was read."""

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Forget what was counted: the run goes on from elsewhere."""
        self._steps = None

    def post_validation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Report; end the run where it is to be."""
        value = monitored(metrics, self.metric, trainer.occasional_metrics)
        if value is None or trainer.run is None:
            return
        if self._steps is None:
            lines = read_metrics(trainer.run.path)
            self._steps = {line["step"] for line in lines if line["split"] == "validation"}
        self._steps.add(trainer.progress.step)
        count = sum(step <= trainer.progress.step for step in self._steps)
        try:
            prune = self.report(count, value)
        except TreadleError as error:
            self.trouble = error
            trainer.stop("a validation cannot be reported")
            return
        if prune and trainer.progress.may_end:
            trainer.finish(PRUNED)


def train_trial(
    trial: Trial,
    recipe: Recipe,
    dims: Sequence[Dimension],
    metric: str,
    repeat: int,
    report: Callable[[int, float], bool] | None,
    stop: Stop,
    log: Sequence[str] = (),
) -> Trial | None:
    """Train what is left to train of a trial; returns what it has come to, None where it was stopped.

    Args:
        trial: the trial, whose directory this process has locked.
        recipe: what all trials are made from.
        dims: what is searched.
        metric: what is measured.
        repeat: its runs, each with a seed of its own.
        report: for `Pruning`, of the first run; None prunes none.
        stop: ends it between two steps.
        log: the sinks of each of its runs, as `sinks_of` reads them.

    Raises UsageError where the disk, or what is shared with other workers, refuses: the trial can be resumed then.
    """
    values: list[float] = []
    steps, seconds = 0, 0.0
    settings = {dim.name: dim.value(trial.drawn[dim.name]) for dim in dims}
    with _threads(trial.threads):
        for index in range(repeat):
            seeds = {"seed": recipe.config.seed + index} if index else {}
            pruning = Pruning(metric, report) if report is not None and index == 0 else None
            try:
                summary = _train(trial, index, recipe, {**settings, **seeds}, pruning, stop, log)
                if summary is None:
                    return None
                steps, seconds = steps + summary["step"], seconds + summary["seconds"]
                values.append(value_of(summary, metric))
            except Exception as error:
                _let_through(error, pruning, trial)
                with open(trial.path / OUTPUT, "a") as file:
                    traceback.print_exception(error, file=file)
                done = read_summary(trial.path / f"v{index + 1:03d}")
                steps, seconds = steps + int(done.get("step", 0)), seconds + float(done.get("seconds", 0.0))
                return _ended(trial, "failed", values, steps, seconds, one_line(error))
            if summary["reason"] == PRUNED:
                return _ended(trial, "pruned", values, steps, seconds)
    return _ended(trial, "finished", values, steps, seconds)


def _train(
    trial: Trial,
    index: int,
    recipe: Recipe,
    settings: Mapping[str, Any],
    pruning: Pruning | None,
    stop: Stop,
    log: Sequence[str],
) -> Mapping[str, Any] | None:
    """Train one run to its end; its summary, None where it was stopped."""
    run = trial.path / f"v{index + 1:03d}"
    done = read_summary(run)
    if done.get("status") == "finished":
        return done
    hooks: list[Hook] = [*sinks_of(log, run), *([] if pruning is None else [pruning])]
    with recipe.with_settings(settings).build(run_dir=run, hooks=hooks, resume=is_run(run)) as trainer:
        if pruning is not None and trainer.validation_feed is None:
            raise UsageError("prune: there are no validation data to compare trials by")
        if not trainer.ended:
            with stop.heeded_by(trainer):
                summary = trainer.train()
            if pruning is not None and pruning.trouble is not None:
                trainer.save()
                raise pruning.trouble
            if summary.status == "stopped":
                trainer.save()
                if stop.reason:
                    return None
        return trainer.summary().to_dict()


def sinks_of(log: Sequence[str], run: Path) -> list[Sink]:
    """The sinks that "NAME" or "NAME=WHERE" each ask for, for a run of a trial.

    Where a sink keeps one run in its directory each has one of its own below WHERE. Raises UsageError for what there is
    not, or cannot be made.
    """
    made = []
    for text in dict.fromkeys(log):
        name, equals, where = text.partition("=")
        if equals and name == "tensorboard":
            where = str(Path(where) / run.parent.name / run.name)
        if name == "rerun" and where.endswith(".rrd"):
            raise UsageError(f"--log {text}: a file holds one run, and a sweep has many: give a directory")
        made.append(make(name, where if equals else None))
    return made


def value_of(summary: Mapping[str, Any], metric: str) -> float:
    """What a run has come to, by its summary: the best value of a metric that was validated, else the last one.

    Raises UsageError where it has none, or only NaN.
    """
    best = summary.get("best") or {}
    known: dict[str, Any] = {**(summary.get("metrics") or {}), **(summary.get("validation_metrics") or {})}
    if best.get("monitor") == metric:
        known[metric] = best["value"]
    if metric not in known:
        raise UsageError(f"there is no metric {metric!r}{nearest(metric, known)} (--metric names another)")
    value = number(known[metric])
    if math.isnan(value):
        raise UsageError(f"its {metric} is NaN")
    return value


def _ended(trial: Trial, state: Any, values: Collection[float], steps: int, seconds: float, error: str = "") -> Trial:
    return replace(trial, state=state, values=tuple(values), steps=steps, seconds=seconds, error=error)


def _let_through(error: Exception, pruning: Pruning | None, trial: Trial) -> None:
    """Raise what is nobody's fault but the disk's, or that of what is shared with others."""
    if pruning is not None and error is pruning.trouble:
        raise error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise UsageError(
                f"trial {trial.number} was stopped, and goes on when the sweep is started again: {one_line(error)}"
            ) from error
        cause = cause.__cause__ or cause.__context__


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Within, torch computes with so many threads: other sums of floats come from others."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
