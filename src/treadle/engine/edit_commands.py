"""The commands that edit a run: they change what it is trained with, are journalled with what was before, and can be
taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from treadle.engine.command import Command, Desk
from treadle.engine.edits import Change
from treadle.errors import UsageError

MOST_CHANGES = 100


@dataclass(frozen=True)
class LearningRateMultiplier(Command):
    """Multiply every scheduled learning rate (of one optimizer, by its attribute's name, or of all) by `value`."""

    value: float
    optimizer: str | None = None

    def __post_init__(self) -> None:
        Change("lr_multiplier", self.optimizer or "all", self.value)

    def apply(self, desk: Desk) -> Any:
        """Journalled as "edit" of "lr_multiplier", once for each optimizer."""
        names = desk.optimizers if self.optimizer is None else [self.optimizer]
        return desk.edit([Change("lr_multiplier", name, self.value) for name in names], apart=True)


@dataclass(frozen=True)
class LossWeight(Command):
    """Set the weight of a loss term; it replaces the term's schedule, which None puts back."""

    term: str
    value: float | None

    def __post_init__(self) -> None:
        Change("loss_weight", self.term, self.value)

    def apply(self, desk: Desk) -> Any:
        """Journalled as "edit" of "loss_weight"."""
        return desk.edit([Change("loss_weight", self.term, self.value)])


@dataclass(frozen=True)
class Freeze(Command):
    """Let some parameters get no update any more, or (`frozen=False`) again; their moments stay as they are.

    `name` is that of a module or parameter that is an attribute ("model"), of what is directly in such a module
    ("model.encoder"), of an optimizer, or of one of its groups ("optimizer/grid").
    """

    name: str
    frozen: bool = True

    def __post_init__(self) -> None:
        Change("frozen", self.name, self.frozen)

    def apply(self, desk: Desk) -> Any:
        """Journalled as "edit" of "frozen"."""
        return desk.edit([Change("frozen", self.name, self.frozen)])


@dataclass(frozen=True)
class ChangeSetting(Command):
    """Change a setting that its config declares live (`setting(..., live=True)`), checked as that config checks it."""

    name: str
    value: Any

    def __post_init__(self) -> None:
        Change("setting", self.name, self.value)

    def apply(self, desk: Desk) -> Any:
        """Journalled as "edit" of "setting"."""
        return desk.edit([Change("setting", self.name, self.value)])


@dataclass(frozen=True)
class SetLimit(Command):
    """Raise or lower `max_steps` or `max_epochs`; a run that had come to its end goes on where that leaves it steps.

    Unlike `Extend` it is an edit: in the journal and the state, but config.yaml stays that of the start.
    """

    name: str
    value: int | None
    at_end: ClassVar[bool] = True
    reopens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Change("limit", self.name, self.value)

    def apply(self, desk: Desk) -> Any:
        """Journalled as "edit" of "limit"."""
        return desk.edit([Change("limit", self.name, self.value)])


@dataclass(frozen=True)
class Edit(Command):
    """Make several changes together, or none of them: all are checked before any is made.

    The answer is a list of what, target, before and after. A run on disk saves a checkpoint before its first edit.
    """

    changes: Sequence[Change]

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes", tuple(self.changes))
        if not all(isinstance(change, Change) for change in self.changes):
            raise UsageError("an edit is made of treadle.engine.edits.Change objects")
        if not 1 <= len(self.changes) <= MOST_CHANGES:
            raise UsageError(f"an edit of {len(self.changes)} changes: expected 1 to {MOST_CHANGES}")

    @property
    def at_end(self) -> bool:  # type: ignore[override]
        """Where it changes a limit, since the run may go on with that."""
        return any(change.what == "limit" for change in self.changes)

    @property
    def reopens(self) -> bool:  # type: ignore[override]
        """As `at_end`."""
        return self.at_end

    def apply(self, desk: Desk) -> Any:
        """Journalled as one "edit": of "several" with a list of them, where there are several."""
        return desk.edit(self.changes)


@dataclass(frozen=True)
class Undo(Command):
    """Take back the last edit that has not been taken back; the answer is that of `Edit`."""

    def apply(self, desk: Desk) -> Any:
        """Journalled as "edit", with "undo"."""
        return desk.undo()
