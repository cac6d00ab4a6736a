"""Strands: functions that are run in turns, each as far as where it waits for the others."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from treadle.data.random import lend_turn


class Abandoned(BaseException):
    """Unwinds a strand whose others have failed."""


class Strand:
    """A thread that runs one function after the other, and never at the same time as whoever resumes it.

    So it has the caller's turn at the random generators, and nothing in it needs a lock.
    """

    def __init__(self, name: str) -> None:
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._function: Callable[[], Any] | None = None
        self._error: BaseException | None = None
        self._abandoned, self._caller = False, 0
        self.busy = False
        """Whether its function has begun, and not ended."""
        self._thread.start()

    def begin(self, function: Callable[[], Any]) -> None:
        """Let `function` be what `resume` runs, in the caller's context."""
        context = contextvars.copy_context()
        self._function, self._error, self.busy = lambda: context.run(function), None, True

    def resume(self) -> None:
        """Let it go on until it waits, or has ended; raises what it has raised."""
        self._caller = threading.get_ident()
        self._go.release()
        self._back.acquire()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """In the strand: let the caller go on, until it resumes this one. Raises Abandoned where it never will."""
        lend_turn(self._caller)
        self._back.release()
        self._go.acquire()
        lend_turn(threading.get_ident())
        if self._abandoned:
            raise Abandoned

    def abandon(self) -> None:
        """Unwind what has begun, so that all that it has entered is left."""
        self._abandoned = True
        while self.busy:
            try:
                self.resume()
            except BaseException:  # what comes of it is nobody's: the others have failed
                continue
        self._abandoned = False

    def end(self) -> None:
        """End the thread."""
        self._function = None
        self._go.release()

    def _serve(self) -> None:
        while True:
            self._go.acquire()
            function = self._function
            if function is None:
                return
            lend_turn(threading.get_ident())
            try:
                function()
            except BaseException as error:
                self._error = error
            self._function, self.busy = None, False
            lend_turn(self._caller)
            del function
            self._back.release()
