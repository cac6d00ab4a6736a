"""Commands: what another thread, a person or a hook may ask of a running trainer, carried out between two steps.

Each command knows what it does (`apply`) and how it is journalled; those that changed the run can be made again from
their journal entries when it is verified (`from_journal`).
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from treadle.engine.until import Until
from treadle.errors import RunError, UsageError

MOST = 1000
"""Commands that may wait at once: a sender that is faster than the steps is told so, instead of filling the memory."""


class Desk(Protocol):
    """What commands can do to a run; the loop offers it. Everything is called between steps, on the run's thread."""

    def pause(self) -> None: ...
    def go_on(self) -> None: ...
    def halt(self, reason: str) -> None: ...
    def save(self) -> Any: ...
    def validate(self) -> dict[str, float]: ...
    def rewind(self, step: int) -> None: ...
    def extend(self, limits: Mapping[str, int | None]) -> None: ...
    def close(self) -> None: ...
    def multiply_learning_rate(self, value: float, optimizer: str | None) -> None: ...
    def set_loss_weight(self, term: str, value: float) -> None: ...
    def call(self, function: Callable[[], Any], edits: str | None) -> Any: ...
    def run_until(self, until: Until) -> Future[Any]: ...
    def refuse(self, command: Command, error: Exception) -> None: ...


@dataclass(frozen=True)
class Command(ABC):
    """Something asked of a run.

    `at_end` says whether it can still be carried out when the run has ended: at once, then, by the thread that asks.
    """

    at_end: ClassVar[bool] = False

    @abstractmethod
    def apply(self, desk: Desk) -> Any:
        """Do it and journal it; returns the answer, or a future of it. Raises UsageError where it cannot be done."""


class Pause(Command):
    """Take no further step until `Continue`."""

    def apply(self, desk: Desk) -> None:
        """Journalled as "pause"."""
        desk.pause()


class Continue(Command):
    """Go on after `Pause`."""

    def apply(self, desk: Desk) -> None:
        """Journalled as "continue"."""
        desk.go_on()


@dataclass(frozen=True)
class Stop(Command):
    """Return from `train()` after the current step; the run can be continued."""

    reason: str = "stopped by command"

    def apply(self, desk: Desk) -> None:
        """Journalled as "stop"."""
        desk.halt(self.reason)


class Save(Command):
    """Write a checkpoint now; where nothing else is asked for, again and again, steps get half of the time."""

    def apply(self, desk: Desk) -> None:
        """Journalled as "checkpoint"."""
        desk.save()


class Validate(Command):
    """Evaluate the validation data now; the answer is the metrics."""

    def apply(self, desk: Desk) -> dict[str, float]:
        """Journalled as "validate": it may have changed what is best."""
        return desk.validate()


@dataclass(frozen=True)
class LearningRateMultiplier(Command):
    """Multiply every scheduled learning rate (of one optimizer, by its attribute's name, or of all) by `value`."""

    value: float
    optimizer: str | None = None

    def __post_init__(self) -> None:
        _check_range("learning-rate multiplier", self.value, 1000.0)

    def apply(self, desk: Desk) -> None:
        """Journalled as "edit" of "lr_multiplier", once for each optimizer."""
        desk.multiply_learning_rate(self.value, self.optimizer)


@dataclass(frozen=True)
class LossWeight(Command):
    """Set the weight of a loss term; it replaces the term's schedule."""

    term: str
    value: float

    def __post_init__(self) -> None:
        if not isinstance(self.term, str) or not self.term:
            raise UsageError(f"loss weight: the term is {self.term!r}, expected its name")
        _check_range(f"weight of loss term {self.term!r}", self.value, math.inf)

    def apply(self, desk: Desk) -> None:
        """Journalled as "edit" of "loss_weight"."""
        desk.set_loss_weight(self.term, self.value)


@dataclass(frozen=True)
class Rewind(Command):
    """Go back to the state after `step` steps, and forget what came later."""

    step: int
    at_end: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.step, bool) or not isinstance(self.step, int) or self.step < 0:
            raise UsageError(f"rewind: the step is {self.step!r}, expected a whole number of 0 or more")

    def apply(self, desk: Desk) -> None:
        """Journalled as "rewind"."""
        desk.rewind(self.step)


@dataclass(frozen=True)
class Extend(Command):
    """Raise the limits of the run, which goes on where it had ended; None leaves a limit as it is."""

    max_epochs: int | None = None
    max_steps: int | None = None
    at_end: ClassVar[bool] = True

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


def from_journal(entry: Mapping[str, Any]) -> Command | None:
    """The command that made a journal entry, where it changed the run: an edit, or a validation that was asked for.

    Raises RunError for an edit that cannot be made again.
    """
    match entry.get("event"), entry.get("what"):
        case "edit", "lr_multiplier":
            return LearningRateMultiplier(entry["after"], entry["optimizer"])
        case "edit", "loss_weight":
            return LossWeight(entry["term"], entry["after"])
        case "validate", _:
            return Validate()
        case "edit", what:
            raise RunError(f"the run was edited at step {entry.get('step')} ({what}), which cannot be made again")
    return None


def _check_range(what: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{what} is {value!r}: expected a finite number")
    if not 0 <= value <= most:
        raise UsageError(f"{what} is {value}: expected a value between 0 and {most:g}")


class CommandQueue:
    """Commands for a trainer, from any thread; the trainer obeys them between steps, in order.

    Each method returns a `concurrent.futures.Future`: it is done when the trainer has obeyed (or refused) the command.
    Values are checked here, in the caller's thread, so a bad one never reaches the trainer. Every command is answered:
    when the run has ended, what still waits or comes later is carried out at once where that is possible (`Rewind`,
    `Extend`, `Call`), and else refused with a RunError.

    Args:
        desk: what the commands are carried out at.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting: deque[tuple[Command, Future[Any]]] = deque()
        # Reentrant: a signal handler may send a command while its own thread is sending one.
        self._arrived = threading.Condition(threading.RLock())
        self._closed: str | None = None

    def put(self, command: Command) -> Future[Any]:
        """Queue `command`; raises UsageError for anything that is no command, and where too many wait already."""
        if not isinstance(command, Command):
            raise UsageError(f"{command!r} is no command: use one of treadle.engine.commands")
        future: Future[Any] = Future()
        with self._arrived:
            if self._closed is None:
                if len(self._waiting) >= MOST:
                    raise UsageError(f"{MOST} commands wait already: wait for the answers before sending more")
                self._waiting.append((command, future))
                self._arrived.notify_all()
                return future
        self._answer_at_end(command, future)
        return future

    def pause(self) -> Future[Any]:
        """Queue `Pause`."""
        return self.put(Pause())

    def resume(self) -> Future[Any]:
        """Queue `Continue`."""
        return self.put(Continue())

    def stop(self, reason: str = "stopped by command") -> Future[Any]:
        """Queue `Stop`."""
        return self.put(Stop(reason))

    def save(self) -> Future[Any]:
        """Queue `Save`."""
        return self.put(Save())

    def validate(self) -> Future[Any]:
        """Queue `Validate`; the future's result is the metrics."""
        return self.put(Validate())

    def lr_multiplier(self, value: float, optimizer: str | None = None) -> Future[Any]:
        """Queue `LearningRateMultiplier`, 0 to 1000."""
        return self.put(LearningRateMultiplier(value, optimizer))

    def loss_weight(self, term: str, value: float) -> Future[Any]:
        """Queue `LossWeight`, finite and not negative."""
        return self.put(LossWeight(term, value))

    def rewind(self, step: int) -> Future[Any]:
        """Queue `Rewind`."""
        return self.put(Rewind(step))

    def extend(self, *, max_epochs: int | None = None, max_steps: int | None = None) -> Future[Any]:
        """Queue `Extend`."""
        return self.put(Extend(max_epochs, max_steps))

    def call(self, function: Callable[[], Any], *, edits: str | None = None) -> Future[Any]:
        """Queue `Call`; the future's result is what `function` returns."""
        return self.put(Call(function, edits))

    def run_until(self, until: str | Until) -> Future[Any]:
        """Queue `RunUntil`: "step 500", "epoch", "nan", "loss < 0.1", "event checkpoint"; see `Until`."""
        return self.put(RunUntil(until if isinstance(until, Until) else Until.parse(until)))

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def hold_the_end(self) -> bool:
        """Whether something waits that has to be done before the run may end. To stop is not: it ends anyway."""
        with self._arrived:
            return any(not isinstance(command, Pause | Continue | Stop) for command, _ in self._waiting)

    def only_saves(self) -> bool:
        """Whether all that waits are checkpoints to be written."""
        with self._arrived:
            return all(isinstance(command, Save) for command, _ in self._waiting)

    def wait(self) -> None:
        """Wait until there is a command, or the run has ended; for the trainer's own thread, while it pauses."""
        with self._arrived:
            while not self._waiting and self._closed is None:
                self._arrived.wait()

    def take(self) -> tuple[Command, Future[Any]]:
        """Take the oldest command; there has to be one."""
        return self._waiting.popleft()

    @property
    def closed(self) -> bool:
        """Whether the run has ended, so that nothing waits any more."""
        return self._closed is not None

    def close(self, why: str, *, for_good: bool = False) -> None:
        """The run has ended: answer everything that waits, and from now on whatever comes.

        Args:
            why: how it ended.
            for_good: a rewind or extension that waits must not open it again: somebody has closed it, or it has failed.
        """
        with self._arrived:
            self._closed = why
            self._arrived.notify_all()
        # Without the lock: what is carried out may take its time, and may open the run again.
        while self._closed is not None and self._waiting:
            command, future = self.take()
            self._answer_at_end(command, future, refuse=for_good and isinstance(command, Rewind | Extend))

    def open(self) -> None:
        """Let commands wait again: the run goes on."""
        self._closed = None

    def carry_out(self, command: Command, future: Future[Any]) -> None:
        """Do what `command` says and answer. What goes wrong is the sender's to know, unless it must end the run."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            answer = command.apply(self._desk)
        except UsageError as error:
            future.set_exception(error)
            self._desk.refuse(command, error)
        except BaseException as error:
            future.set_exception(error)
            # A disk that refuses a checkpoint somebody asked for, or a picture that cannot be drawn, ends no run.
            if not (isinstance(command, Save | Call) and isinstance(error, Exception)):
                raise
            self._desk.refuse(command, error)
        else:
            if isinstance(answer, Future):
                answer.add_done_callback(lambda done: future.set_result(done.result()))
            else:
                future.set_result(answer)
            if isinstance(command, Save):
                self._answer_likewise(answer)

    def _answer_likewise(self, answer: Any) -> None:
        """A checkpoint has been written: whoever waits next for just that has it."""
        for _ in range(len(self._waiting)):
            if not isinstance(self._waiting[0][0], Save):
                return
            _, future = self.take()
            if future.set_running_or_notify_cancel():
                future.set_result(answer)

    def _answer_at_end(self, command: Command, future: Future[Any], *, refuse: bool = False) -> None:
        if command.at_end and not refuse:
            self.carry_out(command, future)
        elif future.set_running_or_notify_cancel():
            future.set_exception(RunError(f"{self._closed}: no command is obeyed any more"))
