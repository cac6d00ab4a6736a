"""Raising the limits of a run that is there: which may be raised to what, and who has to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from treadle.config.settings import amend
from treadle.engine.progress import Progress
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
