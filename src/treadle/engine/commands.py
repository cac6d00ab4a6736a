"""The command queue: the only way another thread touches a running trainer."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from treadle.errors import UsageError


@dataclass(frozen=True)
class Pause:
    """Take no further step until `Continue`."""


@dataclass(frozen=True)
class Continue:
    """Go on after `Pause`."""


@dataclass(frozen=True)
class Stop:
    """Return from `train()` after the current step; the run can be continued."""

    reason: str = "stopped by command"


@dataclass(frozen=True)
class Save:
    """Write a checkpoint now."""


@dataclass(frozen=True)
class Validate:
    """Evaluate the validation data now."""


@dataclass(frozen=True)
class LearningRateMultiplier:
    """Multiply every scheduled learning rate (of one optimizer, by its attribute's name, or of all) by `value`."""

    value: float
    optimizer: str | None = None

    def __post_init__(self) -> None:
        _check_range("learning-rate multiplier", self.value, 1000.0)


@dataclass(frozen=True)
class LossWeight:
    """Set the weight of a loss term; it replaces the term's schedule."""

    term: str
    value: float

    def __post_init__(self) -> None:
        if not isinstance(self.term, str) or not self.term:
            raise UsageError(f"loss weight: the term is {self.term!r}, expected its name")
        _check_range(f"weight of loss term {self.term!r}", self.value, math.inf)


Command = Pause | Continue | Stop | Save | Validate | LearningRateMultiplier | LossWeight


def _check_range(what: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{what} is {value!r}: expected a finite number")
    if not 0 <= value <= most:
        raise UsageError(f"{what} is {value}: expected a value between 0 and {most:g}")


class CommandQueue:
    """Commands for a trainer, from any thread; the trainer obeys them between steps, in order.

    Each method returns a `concurrent.futures.Future`: it is done when the trainer has obeyed (or refused) the command.
    Values are checked here, in the caller's thread, so a bad one never reaches the trainer.
    """

    def __init__(self) -> None:
        # SimpleQueue.put is reentrant, so a signal handler may use it too.
        self._queue: SimpleQueue[tuple[Command, Future[Any]]] = SimpleQueue()

    def put(self, command: Command) -> Future[Any]:
        """Queue `command`; raises UsageError for anything that is no command."""
        if not isinstance(command, Command):
            raise UsageError(f"{command!r} is no command: use one of treadle.engine.commands")
        future: Future[Any] = Future()
        self._queue.put((command, future))
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

    def __bool__(self) -> bool:
        return not self._queue.empty()

    def next(self) -> tuple[Command, Future[Any]]:
        """Take the oldest command, waiting until there is one; for the trainer's own thread."""
        return self._queue.get()
