"""Commands: what another thread, a person or a hook may ask of a running trainer, carried out between two steps.

Each command knows what it does (`apply`) and how it is journalled; those that changed the run can be made again from
their journal entries when it is verified (`from_journal`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from treadle.engine.command import Command, Desk
from treadle.engine.command_queue import CommandQueue
from treadle.engine.edit_commands import (
    ChangeSetting,
    Edit,
    Freeze,
    LearningRateMultiplier,
    LossWeight,
    SetLimit,
    Undo,
)
from treadle.engine.edits import Change, changes_of
from treadle.engine.until import Until
from treadle.engine.watches import Act
from treadle.errors import RunError, UsageError

LONGEST_NOTE = 2000
"""Characters of a bookmark's text."""


class Pause(Command):
    """Take no further step until `Continue`."""

    before_the_end: ClassVar[bool] = False

    def apply(self, desk: Desk) -> None:
        """Journalled as "pause"."""
        desk.pause()


class Continue(Command):
    """Go on after `Pause`."""

    before_the_end: ClassVar[bool] = False

    def apply(self, desk: Desk) -> None:
        """Journalled as "continue"."""
        desk.go_on()


@dataclass(frozen=True)
class Stop(Command):
    """Return from `train()` after the current step; the run can be continued."""

    reason: str = "stopped by command"
    before_the_end: ClassVar[bool] = False

    def apply(self, desk: Desk) -> None:
        """Journalled as "stop"."""
        desk.halt(self.reason)


class Save(Command):
    """Write a checkpoint now; where nothing else is asked for, again and again, steps get half of the time.

    A disk that refuses it ends no run.
    """

    saves: ClassVar[bool] = True
    spares: ClassVar[bool] = True

    def apply(self, desk: Desk) -> None:
        """Journalled as "checkpoint"."""
        desk.save()


class Validate(Command):
    """Evaluate the validation data now; the answer is the metrics."""

    def apply(self, desk: Desk) -> dict[str, float]:
        """Journalled as "validate": it may have changed what is best."""
        return desk.validate()


@dataclass(frozen=True)
class Rewind(Command):
    """Go back to the state after `step` steps, and forget what came later or, with `keep`, make it a fork of the run.

    The answer is the fork's path; None where nothing was kept. A run in memory can keep nothing.
    """

    step: int
    keep: bool = False
    at_end: ClassVar[bool] = True
    reopens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_step("rewind", self.step)

    def apply(self, desk: Desk) -> Path | None:
        """Journalled as "rewind"."""
        return desk.rewind(self.step, self.keep)


@dataclass(frozen=True)
class Note(Command):
    """A bookmark at the state after `step` steps; where it has a checkpoint, that is kept for good.

    The answer is whether there was one.
    """

    step: int
    text: str
    at_end: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_step("note", self.step)
        if not isinstance(self.text, str) or not 1 <= len(self.text.strip()) <= LONGEST_NOTE:
            raise UsageError(f"note: expected a text of 1 to {LONGEST_NOTE} characters")

    def apply(self, desk: Desk) -> bool:
        """Journalled as "note", with the step that it is about as "at"."""
        return desk.bookmark(self.step, self.text.strip())


@dataclass(frozen=True)
class Extend(Command):
    """Raise the limits of the run, which goes on where it had ended; None leaves a limit as it is."""

    max_epochs: int | None = None
    max_steps: int | None = None
    at_end: ClassVar[bool] = True
    reopens: ClassVar[bool] = True

    def apply(self, desk: Desk) -> None:
        """Journalled as "extend", with what was changed."""
        desk.extend({"max_epochs": self.max_epochs, "max_steps": self.max_steps})


class Close(Command):
    """End the run here: what `close()` does when it is called from inside a step."""

    def apply(self, desk: Desk) -> None:
        """Journalled as whatever teardown says."""
        desk.close()


@dataclass(frozen=True)
class Call(Command):
    """Call a function of no arguments between two steps, such as a viewer's render; the answer is what it returns.

    It runs as validation does: modules in eval mode, averaged weights, no gradients, random streams of its own, so the
    run is the same with it or without. A function that changes the run says in `edits` what: it is called as the run
    is, and journalled as an edit, which `verify` cannot make again and therefore refuses to replay across.
    """

    function: Callable[[], Any]
    edits: str | None = None
    at_end: ClassVar[bool] = True
    spares: ClassVar[bool] = True

    @property
    def alone(self) -> bool:  # type: ignore[override]
        """Where it changes nothing."""
        return self.edits is None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise UsageError(f"call: got a {type(self.function).__name__}, expected a function of no arguments")

    def apply(self, desk: Desk) -> Any:
        """Journalled as "edit" of "call", where it edits anything."""
        return desk.call(self.function, self.edits)


@dataclass(frozen=True)
class RunUntil(Command):
    """Go on until something has happened, then pause; see `Until` for what can be waited for.

    The answer comes when that is so, as {"reached": True, "step": ...}; "reached" is False where the run ended first.
    """

    until: Until

    def apply(self, desk: Desk) -> Future[Any]:
        """Journalled as "run until" and, when it is reached, as "pause" with the reason."""
        return desk.run_until(self.until)


@dataclass(frozen=True)
class Advance(Command):
    """Take `count` steps, or go on to the end of so many epochs (the one under way is the first), then pause.

    The answer is that of `RunUntil`.
    """

    count: int = 1
    unit: Literal["steps", "epochs"] = "steps"

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise UsageError(f"advance: the count is {self.count!r}, expected a whole number of at least 1")
        if self.unit not in ("steps", "epochs"):
            raise UsageError(f"advance: the unit is {self.unit!r}, expected 'steps' or 'epochs'")

    def apply(self, desk: Desk) -> Future[Any]:
        """Journalled as `RunUntil` is."""
        return desk.advance(self.count, self.unit)


@dataclass(frozen=True)
class Break(Command):
    """Watch for `until` from now on, and pause each time that it becomes so, or only mark it; see `Until`.

    The answer is the breakpoint's number; it is there until `Unbreak`, and no part of the run's state.
    """

    until: Until
    act: Act = "pause"

    def __post_init__(self) -> None:
        if self.act not in ("pause", "mark"):
            raise UsageError(f"breakpoint: act is {self.act!r}, expected 'pause' or 'mark'")

    def apply(self, desk: Desk) -> int:
        """Journalled as "breakpoint set" and, each time that it is hit, as "breakpoint"."""
        return desk.set_breakpoint(self.until, self.act)


@dataclass(frozen=True)
class Unbreak(Command):
    """Remove the breakpoint of that number."""

    number: int

    def apply(self, desk: Desk) -> None:
        """Journalled as "breakpoint removed"."""
        desk.remove_breakpoint(self.number)


def from_journal(entry: Mapping[str, Any]) -> Command | None:
    """The command that made a journal entry, where it changed the run: an edit, or a validation that was asked for.

    Raises RunError for an edit that cannot be made again.
    """
    if entry.get("event") == "validate":
        return Validate()
    if entry.get("event") != "edit":
        return None
    changes = changes_of(entry)
    if changes is None:
        raise RunError(
            f"the run was edited at step {entry.get('step')} ({entry.get('what')}), which cannot be made again"
        )
    return Edit(changes)


def _check_step(what: str, step: Any) -> None:
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise UsageError(f"{what}: the step is {step!r}, expected a whole number of 0 or more")


def _until(until: str | Until) -> Until:
    return until if isinstance(until, Until) else Until.parse(until)


class Commands:
    """What may be asked of a trainer, from any thread; it obeys between steps, in order.

    Each method returns a `concurrent.futures.Future`: it is done when the trainer has obeyed (or refused) the command.
    Values are checked here, in the caller's thread, so a bad one never reaches the trainer. Every command is answered:
    when the run has ended, what still waits or comes later is carried out at once where that is possible (`Rewind`,
    `Extend`, `Call`), and else refused with a RunError.
    """

    def __init__(self, queue: CommandQueue) -> None:
        self._queue = queue

    def put(self, command: Command, client: str | None = None) -> Future[Any]:
        """Queue `command`, for `client` where somebody else than the program asks: a label of 100 characters at most.

        The journal entries that the command makes have the label. Raises UsageError for anything that is no command,
        and where too many wait already.
        """
        return self._queue.put(command, client)

    def offer(self, command: Command, client: str | None = None) -> Future[Any] | None:
        """Queue `command` as `put` does, but only where the run has not ended; else nothing is done, and it is None.

        For a thread that must not carry it out itself.
        """
        return self._queue.offer(command, client)

    def __len__(self) -> int:
        """How many commands wait."""
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """Whether the run has ended, so that nothing waits any more."""
        return self._queue.closed

    def pause(self) -> Future[Any]:
        """Queue `Pause`."""
        return self._queue.put(Pause())

    def resume(self) -> Future[Any]:
        """Queue `Continue`."""
        return self._queue.put(Continue())

    def stop(self, reason: str = "stopped by command") -> Future[Any]:
        """Queue `Stop`."""
        return self._queue.put(Stop(reason))

    def save(self) -> Future[Any]:
        """Queue `Save`."""
        return self._queue.put(Save())

    def validate(self) -> Future[Any]:
        """Queue `Validate`; the future's result is the metrics."""
        return self._queue.put(Validate())

    def lr_multiplier(self, value: float, optimizer: str | None = None) -> Future[Any]:
        """Queue `LearningRateMultiplier`, 0 to 1000."""
        return self._queue.put(LearningRateMultiplier(value, optimizer))

    def loss_weight(self, term: str, value: float | None) -> Future[Any]:
        """Queue `LossWeight`, finite and not negative; None goes back to the term's own."""
        return self._queue.put(LossWeight(term, value))

    def freeze(self, name: str, frozen: bool = True) -> Future[Any]:
        """Queue `Freeze`."""
        return self._queue.put(Freeze(name, frozen))

    def change_setting(self, name: str, value: Any) -> Future[Any]:
        """Queue `ChangeSetting`."""
        return self._queue.put(ChangeSetting(name, value))

    def set_limit(self, name: str, value: int | None) -> Future[Any]:
        """Queue `SetLimit`."""
        return self._queue.put(SetLimit(name, value))

    def edit(self, changes: Sequence[Change]) -> Future[Any]:
        """Queue `Edit`; the future's result says what, target, before and after of each change."""
        return self._queue.put(Edit(changes))

    def undo(self) -> Future[Any]:
        """Queue `Undo`; the future's result is that of `edit`."""
        return self._queue.put(Undo())

    def rewind(self, step: int, *, keep: bool = False) -> Future[Any]:
        """Queue `Rewind`; the future's result is the path of the fork that keeps what came later."""
        return self._queue.put(Rewind(step, keep))

    def note(self, step: int, text: str) -> Future[Any]:
        """Queue `Note`."""
        return self._queue.put(Note(step, text))

    def extend(self, *, max_epochs: int | None = None, max_steps: int | None = None) -> Future[Any]:
        """Queue `Extend`."""
        return self._queue.put(Extend(max_epochs, max_steps))

    def call(self, function: Callable[[], Any], *, edits: str | None = None) -> Future[Any]:
        """Queue `Call`; the future's result is what `function` returns."""
        return self._queue.put(Call(function, edits))

    def run_until(self, until: str | Until) -> Future[Any]:
        """Queue `RunUntil`: "step 500", "epoch", "nan", "loss < 0.1", "event checkpoint"; see `Until`."""
        return self._queue.put(RunUntil(_until(until)))

    def advance(self, count: int = 1, unit: Literal["steps", "epochs"] = "steps") -> Future[Any]:
        """Queue `Advance`."""
        return self._queue.put(Advance(count, unit))

    def breakpoint(self, until: str | Until, act: Act = "pause") -> Future[Any]:
        """Queue `Break`; the future's result is the breakpoint's number."""
        return self._queue.put(Break(_until(until), act))

    def remove_breakpoint(self, number: int) -> Future[Any]:
        """Queue `Unbreak`."""
        return self._queue.put(Unbreak(number))
