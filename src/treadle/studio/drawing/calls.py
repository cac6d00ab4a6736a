"""Asking views: where they may be asked, at the cost of what drawing may take."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from treadle.errors import TreadleError
from treadle.studio.drawing.share import Budget
from treadle.studio.drawing.sources import Source
from treadle.studio.topics import Live

T = TypeVar("T")


class Calls:
    """Has functions called where views may be asked.

    Args:
        live: the run.
        budget: pays for the time that they take.
        clock: gives seconds.
    """

    def __init__(self, live: Live, budget: Budget, clock: Callable[[], float]) -> None:
        self._live, self._budget, self._clock = live, budget, clock

    def ask(self, source: Source, function: Callable[[], None]) -> BaseException | None:
        """Call a function where views may be asked, and wait for it; returns what it raised."""

        def caught() -> BaseException | None:
            try:
                function()
            except Exception as error:  # told to who looks, and not put into the run's journal picture by picture
                return error
            return None

        try:
            return self.charged(source, caught).result()
        except Exception as error:  # the run takes no calls any more, or the state is closed
            return error

    def charged(self, source: Source, function: Callable[[], T]) -> Future[T]:
        """Have a function called where views may be asked; what that takes is paid for."""
        times: list[float] = []

        def timed() -> T:
            times.append(self._clock())
            self._live.busy = "tile"
            try:
                return function()
            finally:
                self._live.busy = ""
                times.append(self._clock())

        def pay(_: Future[T]) -> None:
            if times:  # to go into evaluation and out of it again is part of the cost: about as much each
                self._budget.spend(times[1] - times[0] + 2 * (self._clock() - times[1]), charge=source.trains)

        future = source.call(timed)
        future.add_done_callback(pay)
        return future


def where(error: BaseException) -> str:
    """The line that raised, where it is not an error that says enough."""
    if isinstance(error, TreadleError) or error.__traceback__ is None:
        return ""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({last.filename.rpartition('/')[2]}, line {last.lineno})"
