"""The limits of a run, and the periods that are counted from them: what may be raised to what, and what can be told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from treadle.config.settings import amend
from treadle.engine.progress import Progress
from treadle.engine.schedule import every
from treadle.engine.settings import TrainerConfig
from treadle.errors import UsageError


def raised(progress: Progress, limits: Mapping[str, int | None]) -> dict[str, tuple[int, int]]:
    """The limits that are given, as name -> (before, after).

    Raises UsageError for what is no higher limit, and where the run would still be at its end with them.
    """
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        raise UsageError("extend() was given no limit: say extend(max_epochs=...) or extend(max_steps=...)")
    changes: dict[str, tuple[int, int]] = {}
    for name, value in given.items():
        before = getattr(progress, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"extend: {name} is {value!r}, expected a whole number of at least 1")
        if before is None:
            raise UsageError(f"extend: the run has no {name}, so this would be a new limit and no higher one")
        if value < before:
            raise UsageError(f"extend: {name} is {before} already, and {value} would be less")
        changes[name] = (before, value)
    later = dataclasses.replace(progress, **given)
    if later.at_limit:
        ends = [f"{name}={getattr(later, name)}" for name in ("max_epochs", "max_steps") if getattr(later, name)]
        raise UsageError(
            f"extend: after {progress.epoch} epochs and {progress.step} steps the run is still at its end with "
            f"{' and '.join(ends)}: raise them further"
        )
    return changes


def raise_limits(progress: Progress, config: TrainerConfig, changes: Mapping[str, tuple[int, int]]) -> None:
    """Let the run go on to the limits that `raised` has found right: its counters and its settings say so."""
    for name, (_, after) in changes.items():
        setattr(progress, name, after)
        amend(config, name, after)


def check_schedules(config: TrainerConfig, progress: Progress) -> None:
    """Raise UsageError for a period that cannot be told in this run, and for limits that contradict each other."""
    for name in ("log_every", "validate_every", "save_every", "snapshot_every"):
        try:
            every(getattr(config, name)).due_after_step(progress)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
    total, least = progress.total_steps, progress.min_steps
    if total is not None and total < least:
        raise UsageError(f"min_steps is {least}, but max_steps and max_epochs end the run after {total}: raise them")
