"""Commands as plain data: what one process of a run tells the others, so that all of them obey."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from treadle.config.fields import plain
from treadle.engine import commands, edit_commands
from treadle.engine.command import Command
from treadle.engine.edits import Change
from treadle.engine.until import Until
from treadle.errors import RunError, UsageError

KINDS: dict[str, type[Command]] = {
    kind.__name__: kind
    for kind in (
        commands.Pause,
        commands.Continue,
        commands.Stop,
        commands.Save,
        commands.Validate,
        commands.Rewind,
        commands.Note,
        commands.Extend,
        commands.Close,
        commands.RunUntil,
        commands.Advance,
        commands.Break,
        commands.Unbreak,
        edit_commands.LearningRateMultiplier,
        edit_commands.LossWeight,
        edit_commands.Freeze,
        edit_commands.ChangeSetting,
        edit_commands.SetLimit,
        edit_commands.Edit,
        edit_commands.Undo,
    )
}
"""The commands that are data. A `Call` is not: it is the asking process's own."""

_PARTS: dict[str, Callable[[Any], Any]] = {
    "until": lambda value: Until(**value),
    "changes": lambda value: [Change(**each) for each in value],
}
"""Fields that are more than plain data."""


def to_wire(command: Command) -> dict[str, Any]:
    """`command` as plain data, which JSON holds. Raises UsageError for one that is not data."""
    name = type(command).__name__
    if KINDS.get(name) is not type(command):
        raise UsageError(f"{name} is obeyed by a run of one process: several obey {', '.join(KINDS)}")
    fields = dataclasses.fields(command) if dataclasses.is_dataclass(command) else ()
    return {"command": name, **{field.name: plain(getattr(command, field.name), name) for field in fields}}


def from_wire(told: Mapping[str, Any]) -> Command:
    """The command that `to_wire` made that of. Raises RunError for anything else."""
    try:
        fields = {name: _PARTS.get(name, lambda value: value)(value) for name, value in told.items()}
        return KINDS[fields.pop("command")](**fields)
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise RunError(
            f"another process of this run asks for {dict(told)!r}, which is no command here: start all of them with "
            f"the same version ({type(error).__name__}: {error})"
        ) from error
