"""Strands: functions that are run in turns, each as far as where it waits for the others."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from treadle.data.random import lend_turn


class Abandoned(BaseException):
    """Unwinds a strand whose others have failed."""


class Strand:
    """A thread that runs one function after the other, and never at the same time as whoever resumes it.

    So it has the caller's turn at the random generators, and nothing in it needs a lock.
    """

    def __init__(self, name: str) -> None:
        # Whose turn it is, which a Ctrl-C at any place leaves as it is. The queues only wake who waits for it.
        self._on = False
        self._go: SimpleQueue[None] = SimpleQueue()
        self._back: SimpleQueue[None] = SimpleQueue()
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
        """Let it go on until it waits, or has ended; raises what it has raised.

        A KeyboardInterrupt that comes meanwhile is raised then, too: until then the two would be at work at once.
        """
        self._caller = threading.get_ident()
        interrupt = None
        self._on = True
        while self._on:
            try:
                self._go.put(None)
                while self._on:
                    self._back.get()
            except KeyboardInterrupt as error:
                interrupt = error
        raised, self._error = self._error, None
        if interrupt is not None:
            raise interrupt from raised
        if raised is not None:
            raise raised

    def wait(self) -> None:
        """In the strand: let the caller go on, until it resumes this one. Raises Abandoned where it never will."""
        self._hand_back()
        self._take_over()
        if self._abandoned:
            raise Abandoned

    def abandon(self) -> None:
        """Unwind what has begun, so that all that it has entered is left.

        What comes of that is nobody's, for the others have failed: but a KeyboardInterrupt is raised when it is done.
        """
        interrupt = None
        self._abandoned = True
        while self.busy:
            try:
                self.resume()
            except KeyboardInterrupt as error:
                interrupt = error
            except BaseException:
                continue
        self._abandoned = False
        if interrupt is not None:
            raise interrupt

    def end(self) -> None:
        """End the thread."""
        self._function = None
        self._on = True
        self._go.put(None)

    def _take_over(self) -> None:
        while not self._on:
            self._go.get()
        lend_turn(threading.get_ident())

    def _hand_back(self) -> None:
        lend_turn(self._caller)
        self._on = False
        self._back.put(None)

    def _serve(self) -> None:
        while True:
            while not self._on:
                self._go.get()
            function = self._function
            if function is None:
                return
            lend_turn(threading.get_ident())
            try:
                function()
            except BaseException as error:
                self._error = error
            self._function, self.busy = None, False
            del function
            self._hand_back()
