"""The desk at which commands are carried out: what they do to a run, between two of its steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from treadle.engine.command import Command
from treadle.engine.edits import Change, flat
from treadle.engine.lifecycle import Stage
from treadle.engine.loop import Loop
from treadle.engine.until import Until
from treadle.engine.watches import Act
from treadle.errors import UsageError


class Drives(Protocol):
    """What the desk leaves to the run's driver: all that takes steps, saves, or ends the run."""

    @property
    def active(self) -> AbstractContextManager[None]: ...
    def evaluating(self) -> AbstractContextManager[None]: ...
    def halt(self, reason: str) -> None: ...
    def close(self) -> None: ...
    def extend(self, limits: Mapping[str, int | None]) -> None: ...
    def rewind(self, step: int, keep: bool = False) -> Path | None: ...
    def reopen(self) -> None: ...
    def save(self) -> Any: ...
    def save_before(self, otherwise: str) -> None: ...
    def settle(self) -> None: ...


class RunDesk:
    """The `Desk` of a run: what commands do to it, all of it journaled.

    Args:
        driver: who drives the run.
        loop: what is driven.
    """

    def __init__(self, driver: Drives, loop: Loop) -> None:
        self._driver, self._loop, self._lifecycle = driver, loop, loop.lifecycle
        self._advancing: tuple[Until, Future[Any]] | None = None

    def pause(self) -> None:
        """Take no step until told to go on."""
        self._lifecycle.to(Stage.PAUSED)
        self._loop.note("pause")

    def go_on(self) -> None:
        """Go on after a pause."""
        if self._lifecycle.stage is Stage.PAUSED:
            self._lifecycle.to(Stage.RUNNING)
        self._loop.note("continue")

    def halt(self, reason: str) -> None:
        """Suspend the run here: `train` or `iterate` return."""
        self._driver.halt(reason)

    def close(self) -> None:
        """End the run here, once; from inside a step, after it."""
        self._driver.close()

    def extend(self, limits: Mapping[str, int | None]) -> None:
        """Raise the limits of the run, and open it again where it had come to its end."""
        self._driver.extend(limits)

    def rewind(self, step: int, keep: bool = False) -> Path | None:
        """Go back to the state after `step` steps; with `keep` returns the path of a run made of what came later."""
        return self._driver.rewind(step, keep)

    def save(self) -> Any:
        """Write a checkpoint, and wait for it."""
        return self._driver.save()

    def validate(self) -> dict[str, float]:
        """Validate, because somebody asked."""
        self._driver.settle()
        metrics = self._loop.subject.validate()
        self._loop.note("validate")
        return metrics

    def bookmark(self, step: int, text: str) -> bool:
        """Note something about the state after `step` steps, and keep its checkpoint where there is one."""
        loop = self._loop
        if not 0 <= step <= loop.progress.step:
            raise UsageError(f"no bookmark can be at step {step}: the run is at step {loop.progress.step}")
        self._driver.settle()
        pinned = loop.archive is not None and loop.archive.pin(step, f"note: {text}")
        loop.note("note", at=step, text=text, pinned=pinned)
        return pinned

    @property
    def optimizers(self) -> Collection[str]:
        """The names of the optimizers there are."""
        return list(self._loop.minimizer.updaters)

    def edit(self, changes: Sequence[Change], *, apart: bool = False) -> list[dict[str, Any]]:
        """Make changes together; `apart` journals each by itself. Returns what, target, before and after of each."""
        return self._edit(changes, self._loop.edits.make, apart=apart)

    def undo(self) -> list[dict[str, Any]]:
        """Take the last edit back."""
        edits = self._loop.edits
        return self._edit(edits.last(), lambda _: edits.undo(), undo=True)

    def _edit(
        self,
        changes: Sequence[Change],
        make: Callable[[Sequence[Change]], list[dict[str, Any]]],
        *,
        apart: bool = False,
        **said: Any,
    ) -> list[dict[str, Any]]:
        loop, lifecycle = self._loop, self._lifecycle
        if lifecycle.ended and lifecycle.stage is not Stage.FINISHED:
            raise UsageError(f"the run cannot be edited, it is {lifecycle.status}: rewind or resume it")
        if lifecycle.in_step:
            raise UsageError("the run cannot be edited from inside a hook or a call: queue the command before")
        with self._driver.active:
            loop.parts.refresh()
            loop.edits.propose(changes)
            self._driver.settle()
            if loop.archive is not None and not loop.edits.history and loop.progress.step not in loop.archive.steps():
                self._driver.save_before("nothing was changed, since there is no checkpoint before it")
            if lifecycle.ended:
                self._driver.reopen()
            with lifecycle.occupied("edit"):
                made = make(changes)
            told = [flat(change) for change in made]
            for entry in told if apart or len(told) == 1 else [{"what": "several", "changes": told}]:
                loop.note("edit", **entry, **said)
        return [{name: change[name] for name in ("what", "target", "before", "after")} for change in made]

    def call(self, function: Callable[[], Any], edits: str | None) -> Any:
        """Call a function between two steps."""
        with self._driver.active:
            if edits is None:
                with self._driver.evaluating(), self._loop.world.silent("a call between two steps"):
                    return function()
            with self._lifecycle.occupied("call"):
                result = function()
            self._loop.note("edit", what=f"call: {edits}")
            return result

    def run_until(self, until: Until) -> Future[Any]:
        """Go on until something has happened, then pause."""
        if self._lifecycle.stage is Stage.PAUSED:
            self._lifecycle.to(Stage.RUNNING)
        self._loop.note("run until", until=str(until))
        return self._loop.watches.run_until(until, self._loop.best, self._loop.logbook.client)

    def advance(self, count: int, unit: str) -> Future[Any]:
        """Take so many steps, or finish so many epochs, then pause. Asked again on the way there, it adds up."""
        kind = "step" if unit == "steps" else "epoch"
        done = self._loop.progress.step if kind == "step" else self._loop.progress.epoch
        if self._advancing is not None and not self._advancing[1].done() and self._advancing[0].kind == kind:
            done = max(done, int(self._advancing[0].value))
        until = Until(kind, value=done + count)
        self._advancing = until, self.run_until(until)
        return self._advancing[1]

    def set_breakpoint(self, until: Until, act: Act) -> int:
        """Watch for something until that is removed; returns the breakpoint's number."""
        number = self._loop.watches.add(until, act, self._loop.best)
        self._loop.note("breakpoint set", number=number, until=str(until), act=act)
        return number

    def remove_breakpoint(self, number: int) -> None:
        """Watch for it no longer."""
        until = self._loop.watches.remove(number)
        self._loop.note("breakpoint removed", number=number, until=str(until))

    def asked_by(self, client: str | None) -> AbstractContextManager[None]:
        """Within the block the journal says that `client` has asked for what is done."""
        return self._loop.logbook.asked_by(client)

    def refuse(self, command: Command, error: Exception) -> None:
        """Journal a command that was not carried out."""
        self._loop.note("refused", command=type(command).__name__, error=str(error))
