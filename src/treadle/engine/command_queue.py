"""The commands that wait for a trainer: put there by any thread, carried out by the trainer's own between two steps."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, NamedTuple

from treadle.engine.command import Command, Desk
from treadle.errors import RunError, UsageError
from treadle.parallel import ALONE, World

MOST = 1000
"""Commands that may wait at once: a sender that is faster than the steps is told so, instead of filling the memory."""
LABEL = 100
"""The most characters of a client's label."""
AGREED = ("Save", "Stop", "Close")
"""The commands that several processes obey together, in the order in which they do."""


class Asked(NamedTuple):
    """A command that waits, the future of its answer, and who asked."""

    command: Command
    future: Future[Any]
    client: str | None


class CommandQueue:
    """Commands for a trainer, put here by any thread; the trainer's own takes them between steps, in order.

    Args:
        desk: what the commands are carried out at.
        world: the processes that obey together: several of them only what `AGREED` names.
    """

    def __init__(self, desk: Desk, world: World = ALONE) -> None:
        self._desk, self._world = desk, world
        self._waiting: deque[Asked] = deque()
        # Reentrant: a signal handler may send a command while its own thread is sending one.
        self._arrived = threading.Condition(threading.RLock())
        self._closed: str | None = None

    def put(self, command: Command, client: str | None = None) -> Future[Any]:
        """Queue `command`, for `client` where somebody else than the program asks: a label of 100 characters at most.

        Raises UsageError for anything that is no command, and where too many wait already.
        """
        future = self.offer(command, client)
        if future is None:
            asked = Asked(command, Future(), client)
            self._answer_at_end(asked)
            return asked.future
        return future

    def offer(self, command: Command, client: str | None = None) -> Future[Any] | None:
        """Queue `command` as `put` does, but only where the run has not ended; else nothing is done, and it is None.

        For a thread that must not carry it out itself.
        """
        if not isinstance(command, Command):
            raise UsageError(f"{command!r} is no command: use one of treadle.engine.commands")
        if client is not None and not (isinstance(client, str) and 0 < len(client) <= LABEL):
            raise UsageError(f"client is {client!r}: expected a label of 1 to {LABEL} characters, or None")
        if self._world.size > 1 and type(command).__name__ not in AGREED:
            raise UsageError(
                f"{type(command).__name__} is obeyed by a run of one process, and here are {self._world.size}, which "
                f"obey {', '.join(AGREED)}"
            )
        asked = Asked(command, Future(), client)
        with self._arrived:
            if self._closed is None:
                if len(self._waiting) >= MOST:
                    raise UsageError(f"{MOST} commands wait already: wait for the answers before sending more")
                self._waiting.append(asked)
                self._arrived.notify_all()
                return asked.future
        return None

    def agree(self) -> None:
        """Let the same commands wait in every process, where one has some: those of all, in the order of ranks.

        What one process was asked and another was not, the other carries out as well, and nobody hears of its answer.
        """
        from treadle.engine.commands import named  # a run that is asked for nothing does without them

        with self._arrived:
            mine = [[type(asked.command).__name__, getattr(asked.command, "reason", "")] for asked in self._waiting]
        plan = {name: reason for everybodys in reversed(self._world.gather(mine)) for name, reason in everybodys}
        with self._arrived:
            known = {type(asked.command).__name__: asked for asked in reversed(self._waiting)}
            later = list(self._waiting)[len(mine) :]
            self._waiting.clear()
            for name in sorted(plan, key=AGREED.index):
                self._waiting.append(known.get(name) or Asked(named(name, plan[name]), Future(), None))
            self._waiting.extend(asked for asked in later if asked not in self._waiting)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def hold_the_end(self) -> bool:
        """Whether something waits that has to be done before the run may end. To stop is not: it ends anyway."""
        with self._arrived:
            return any(asked.command.before_the_end for asked in self._waiting)

    def only_saves(self) -> bool:
        """Whether all that waits are checkpoints to be written."""
        with self._arrived:
            return all(asked.command.saves for asked in self._waiting)

    def wait(self) -> None:
        """Wait until there is a command, or the run has ended; for the trainer's own thread, while it pauses."""
        with self._arrived:
            while not self._waiting and self._closed is None:
                self._arrived.wait()

    def take(self) -> Asked:
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
            asked = self.take()
            self._answer_at_end(asked, refuse=for_good and asked.command.reopens)

    def open(self) -> None:
        """Let commands wait again: the run goes on."""
        self._closed = None

    def carry_out(self, asked: Asked) -> None:
        """Do what the command says and answer. What goes wrong is the sender's to know, unless it must end the run."""
        with self._desk.asked_by(asked.client):
            self._carry_out(asked.command, asked.future)

    def _carry_out(self, command: Command, future: Future[Any]) -> None:
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
            if not (command.spares and isinstance(error, Exception)):
                raise
            self._desk.refuse(command, error)
        else:
            if isinstance(answer, Future):
                answer.add_done_callback(lambda done: future.set_result(done.result()))
            else:
                future.set_result(answer)
            if command.saves:
                self._answer_likewise(answer)

    def _answer_likewise(self, answer: Any) -> None:
        """A checkpoint has been written: whoever waits next for just that has it."""
        for _ in range(len(self._waiting)):
            if not self._waiting[0].command.saves:
                return
            future = self.take().future
            if future.set_running_or_notify_cancel():
                future.set_result(answer)

    def _answer_at_end(self, asked: Asked, *, refuse: bool = False) -> None:
        if asked.command.at_end and not refuse:
            self.carry_out(asked)
        elif asked.future.set_running_or_notify_cancel():
            asked.future.set_exception(RunError(f"{self._closed}: no command is obeyed any more"))
