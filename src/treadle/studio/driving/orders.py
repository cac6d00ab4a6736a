"""The commands of a studio: obeyed by the run while it goes on, and after its end by whoever waits for them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from treadle.engine.command import Command
from treadle.engine.commands import Call, Commands, Stop
from treadle.errors import RunError

SIGNAL_SECONDS = 0.5
"""A signal that comes just before a wait begins is seen this much later, at most."""

T = TypeVar("T")


class Orders:
    """`Commands` for a run that may have ended: from then on they are carried out by whoever is in `Studio.wait`.

    Args:
        commands: the run's queue, which obeys while the run goes on.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._after: queue.SimpleQueue[tuple[Command, str, Future[Any]]] = queue.SimpleQueue()
        self._attended = False

    def put(self, command: Command, client: str = "") -> Future[Any]:
        """Have a command obeyed."""
        queued = self._commands.offer(command, client or None)
        future: Future[Any] = Future()
        if queued is not None:
            if not (isinstance(command, Stop) or command.reopens):
                return queued
            queued.add_done_callback(lambda done: self._obeyed(done, command, client, future))
        elif self._attended:
            self._after.put((command, client, future))
        else:
            future.set_exception(RunError("the run has ended, and its program does something else by now"))
        return future

    def _obeyed(self, done: Future[Any], command: Command, client: str, future: Future[Any]) -> None:
        """Answer; where the run came to its end before that, it is for what waits after it: to stop, or to go on."""
        error, stops = done.exception(), isinstance(command, Stop)
        late = error is not None and (stops or (isinstance(error, RunError) and self._commands.closed))
        if late and self._attended:
            self._after.put((command, client, future))
        elif future.set_running_or_notify_cancel():
            if error is not None and not stops:
                future.set_exception(error)
            else:
                future.set_result(None if stops else done.result())

    def __len__(self) -> int:
        return len(self._commands) + self._after.qsize()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called between two steps."""
        return self.put(Call(function))

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Within the block somebody carries out what is asked after the end."""
        self._attended = True
        try:
            yield
        finally:
            self._attended = False

    def carry_out_next(self) -> bool:
        """Wait for the next command and carry it out in this thread; returns whether it was to stop."""
        command, client, future = self._next()
        if not future.set_running_or_notify_cancel():
            return False
        if isinstance(command, Stop):
            future.set_result(None)
            return True
        try:
            future.set_result(self._commands.put(command, client or None).result())
        except Exception as error:
            future.set_exception(error)
        return False

    def _next(self) -> tuple[Command, str, Future[Any]]:
        while True:
            try:
                return self._after.get(timeout=SIGNAL_SECONDS)
            except queue.Empty:
                continue
