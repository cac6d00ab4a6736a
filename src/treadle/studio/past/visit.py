"""What may be asked of a run that is only looked at: its calls are made, and what would train it is told or refused."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from treadle.engine import commands
from treadle.engine.command import Command
from treadle.engine.edit_commands import Edit
from treadle.errors import TreadleError, UsageError

T = TypeVar("T")
Within = Callable[[Callable[[], Any], None], Any]


@dataclass
class Wanted:
    """What somebody wants of a run that is looked at, and that looking cannot do.

    `command` is to be carried out by the run itself, for `client`; `run` is another one that is to be shown, and
    `table` says that none is. All empty means that the studio is to be left.
    """

    command: Command | None = None
    client: str = ""
    run: Path | None = None
    table: bool = False


class Visit:
    """The commands of a run that is looked at (`treadle.studio.topics.Commands`).

    Calls are carried out in the thread that attends. What would train ends the attendance, and is told to whoever
    attended; all else is refused.

    Args:
        refusal: why nothing may train it; empty where it may.
        last: the step up to which it can be gone back; None where there is no state to go on from.
        within: calls a function as validation does; the run's `Driver.call`.
        finished: whether it has come to its end, so that it can only go on from earlier, or further.
    """

    def __init__(self, refusal: str, last: int | None, within: Within, *, finished: bool = False) -> None:
        self._refusal, self._last, self._within, self._finished = refusal, last, within, finished
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | Wanted] = queue.SimpleQueue()

    def put(self, command: Command, client: str = "") -> Future[Any]:
        """Have a call made, or the run go on."""
        if isinstance(command, commands.Call):
            return self.call(command.function)
        future: Future[Any] = Future()
        try:
            if isinstance(command, Edit):
                command = self._extension(command)
            if not isinstance(command, commands.Stop):
                self._check(command)
        except TreadleError as error:
            future.set_exception(error)
            return future
        self._calls.put(Wanted(None if isinstance(command, commands.Stop) else command, client))
        future.set_result({"opens": True})
        return future

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called in the thread that attends."""
        future: Future[T] = Future()
        self._calls.put((function, future))
        return future

    def leave_for(self, wanted: Wanted) -> None:
        """End the attendance."""
        self._calls.put(wanted)

    def __len__(self) -> int:
        return self._calls.qsize()

    def attend(self) -> Wanted:
        """Make the calls that come, until something is wanted that is no call."""
        while True:
            asked = self._calls.get()
            if isinstance(asked, Wanted):
                return asked
            function, future = asked
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._within(function, None))
                except Exception as error:
                    future.set_exception(error)
            del asked, function, future  # nothing of a state that was let go is kept until the next call

    def refuses(self, what: str) -> str:
        """Why no edit of this kind can be made; empty where one can: the limits of a run that has come to its end."""
        if self._refusal:
            return self._refusal
        if self._finished:
            return "" if what == "limit" else "the run has come to its end: only its limits can be raised"
        return "nothing is trained here now: play first"

    def _extension(self, edit: Edit) -> commands.Extend:
        """What an edit of limits comes to, which lets the run go on. Raises UsageError for any other edit."""
        for change in edit.changes:
            if why := self.refuses(change.what):
                raise UsageError(why)
            if change.value is None:
                raise UsageError(f"{change.target}: give a number, up to which the run goes on")
        return commands.Extend(**{change.target: change.value for change in edit.changes})

    def _check(self, command: Command) -> None:
        if self._refusal:
            raise UsageError(self._refusal)
        going = (commands.Continue, commands.RunUntil, commands.Advance, commands.Rewind, commands.Extend)
        if not isinstance(command, going):
            raise UsageError(
                f"nothing is trained here now, so there is nothing to {type(command).__name__.lower()}: play first"
            )
        if self._finished and not isinstance(command, commands.Rewind | commands.Extend):
            raise UsageError("the run has come to its end: raise its limits, or continue from an earlier state")
        if self._last is None and not isinstance(command, commands.Continue):
            raise UsageError("the run has no state to go on from: play begins it anew")
        if isinstance(command, commands.Rewind) and self._last is not None and command.step > self._last:
            raise UsageError(f"cannot rewind to step {command.step}: the run's newest state is of step {self._last}")
