"""The commands that wait for a trainer: put there by any thread, carried out by the trainer's own between two steps."""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Container
from concurrent.futures import Future
from itertools import takewhile
from typing import Any, NamedTuple

from treadle.engine.command import Command, Desk
from treadle.errors import RunError, UsageError
from treadle.parallel import ALONE, World

MOST = 1000
"""Commands that may wait at once: a sender that is faster than the steps is told so, instead of filling the memory."""
LABEL = 100
"""The most characters of a client's label."""
BEAT = 1.0
"""Seconds after which a run of several processes that pauses asks all of them anew what they are told."""
ONCE = ("Save", "Stop", "Close")
"""What several processes that are told so, for whatever reasons, do only once."""


class Asked(NamedTuple):
    """A command that waits, the future of its answer, and who asked."""

    command: Command
    future: Future[Any]
    client: str | None

    @property
    def here(self) -> bool:
        """Whether it is for this process alone, of several: it changes nothing, and the others need not know."""
        return self.command.alone


class CommandQueue:
    """Commands for a trainer, put here by any thread; the trainer's own takes them between steps, in order.

    Args:
        desk: what the commands are carried out at.
        world: the processes that obey together. Of several each tells the others what it was asked (`agree`), and all
            of them carry it out after the same step; what changes nothing is carried out by the one that was asked.
    """

    def __init__(self, desk: Desk, world: World = ALONE) -> None:
        self._desk, self._world = desk, world
        self._waiting: deque[Asked] = deque()
        self._agreed: deque[Asked] = deque()
        """What all of several processes have been told, and not yet done."""
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
        if self._world.size > 1 and not command.alone:
            from treadle.engine.wire import to_wire  # a run that is asked for nothing does without it

            to_wire(command)
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
        """Tell all processes what each of them is asked, in the order of ranks; all have the same to carry out then.

        What is asked in several of them in the same words is one command: a hook says it in each. Collective.
        """
        from treadle.engine.wire import from_wire, to_wire

        with self._arrived:
            asked = [one for one in self._waiting if not one.here and _begins(one.future)]
            self._waiting = deque(one for one in self._waiting if one.here)
        known: dict[str, Asked] = {}
        words: list[list[Any]] = []
        for one in [*self._agreed, *asked]:
            words.append([to_wire(one.command), one.client])
            known[_key(words[-1][0], known)] = one
        plan: dict[str, Asked] = {}
        try:
            found = self._world.gather(words)
        except BaseException:
            self._waiting.extendleft(reversed(asked))  # who asked is told that the run has ended
            raise
        for everybodys in found:
            theirs: dict[str, Any] = {}
            for told, client in everybodys:
                key = _key(told, theirs)
                theirs[key] = plan.setdefault(key, self._asked_here(from_wire(told), known.get(key), client))
        self._agreed = deque(plan.values())

    @staticmethod
    def _asked_here(command: Command, mine: Asked | None, client: str | None) -> Asked:
        """A command of the plan; where somebody here has asked for it too, the answer is for them."""
        if mine is not None:
            return Asked(command, mine.future, client)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        return Asked(command, future, client)

    @property
    def asks(self) -> bool:
        """Whether something waits that other processes have to be told of."""
        return bool(self._waiting) and any(not asked.here for asked in list(self._waiting))

    @property
    def ready(self) -> int:
        """How many commands may be carried out now: of one process all, of several what all know, and its own."""
        if self._world.size == 1:
            return len(self._waiting)
        with self._arrived:
            return len(self._agreed) + sum(1 for _ in takewhile(lambda asked: asked.here, self._waiting))

    def __bool__(self) -> bool:
        return bool(self._waiting or self._agreed)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._agreed)

    def hold_the_end(self) -> bool:
        """Whether something waits that has to be done before the run may end. To stop is not: it ends anyway."""
        with self._arrived:
            return any(asked.command.before_the_end for asked in [*self._agreed, *self._waiting])

    def only_saves(self) -> bool:
        """Whether all that may be carried out are checkpoints to be written."""
        with self._arrived:
            return all(asked.command.saves for asked in self._due)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until there is a command, or the run has ended; for the trainer's own thread, while it pauses.

        At most `seconds`, where these are given.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: self or self._closed is not None, seconds)

    def take(self) -> Asked:
        """Take the oldest command; there has to be one that is ready."""
        return self._due.popleft()

    @property
    def _due(self) -> deque[Asked]:
        return self._agreed or self._waiting

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
        while self._closed is not None and self:
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
        if not _begins(future):
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
        due = self._due
        for _ in range(len(due)):
            if not due[0].command.saves:
                return
            future = due.popleft().future
            if _begins(future):
                future.set_result(answer)

    def _answer_at_end(self, asked: Asked, *, refuse: bool = False) -> None:
        several = self._world.size > 1 and not asked.here  # the others do not hear of it any more
        if asked.command.at_end and not refuse and not several:
            self.carry_out(asked)
        elif _begins(asked.future):
            remedy = ""
            if several and asked.command.at_end:
                remedy = (
                    f", for its {self._world.size} processes wait for one another no longer: call rewind() or extend() "
                    "in all of them, or start them again with resume=True"
                )
            asked.future.set_exception(RunError(f"{self._closed}: no command is obeyed any more{remedy}"))


def _begins(future: Future[Any]) -> bool:
    """Whether the answer is still wanted; from now on it cannot be cancelled."""
    return future.running() or future.set_running_or_notify_cancel()


def _key(told: dict[str, Any], known: Container[str]) -> str:
    """What a command is the same by in all processes: its words, and how often they were said before."""
    words = told["command"] if told["command"] in ONCE else json.dumps(told, sort_keys=True)
    return next(key for count in itertools.count() if (key := f"{count} {words}") not in known)
