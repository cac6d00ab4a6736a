"""A worker: takes one trial after the other, as long as there are any."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from treadle.errors import RunError
from treadle.recipes.registry import Recipe
from treadle.sweeps.plan import Plan
from treadle.sweeps.search import Dimension
from treadle.sweeps.study import Study
from treadle.sweeps.training import Stop, train_trial
from treadle.sweeps.trials import Trial, write_trial

MOST_FAILURES = 5
"""Trials that may fail one after the other: then it is not the settings that are wrong with them."""


class Failures:
    """Counts trials that have failed one after the other. Raises RunError where there are too many."""

    def __init__(self) -> None:
        self._failed = 0

    def take(self, trial: Trial) -> None:
        """Take in a trial that has ended."""
        self._failed = self._failed + 1 if trial.state == "failed" else 0
        if self._failed >= MOST_FAILURES:
            raise RunError(
                f"{self._failed} trials failed one after the other, the last with: {trial.error.rstrip('.')}; mend "
                f"that, and start the sweep again (what they have said: {trial.path.parent}/trial-*/output.txt)"
            )


def work(
    study: Study,
    plan: Plan,
    recipe: Recipe,
    dims: Sequence[Dimension],
    stop: Stop,
    told: Callable[[Trial], None],
    begun: Callable[[Trial], None] = lambda trial: None,
    log: Sequence[str] = (),
) -> None:
    """Train trials until none is left, or until it is stopped.

    Args:
        study, plan, recipe, dims, stop: what is searched, and who may end it.
        told: is given each trial that has ended.
        begun: is given each trial before it is trained.
        log: the sinks of their runs.
    """
    while not stop.reason:
        claim = study.claim()
        if claim is None:
            return
        with claim:
            trial = claim.trial
            if not trial.ended:  # else a kill came between the two records of its end
                begun(trial)

                def report(count: int, value: float, trial: Trial = trial) -> bool:
                    return study.report(trial, count, value)

                prune = report if plan.prune is not None else None
                outcome = train_trial(trial, recipe, dims, plan.metric, plan.repeat, prune, stop, log)
                if outcome is None:
                    return
                trial = outcome
                write_trial(trial)
            study.conclude(trial)
        told(trial)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
