"""The hub: who is connected, what they are told, and which topic answers what they ask."""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from typing import Any

from treadle.engine.events import Record
from treadle.errors import TreadleError, UsageError, one_line
from treadle.studio.protocol import (
    VERSION,
    Answer,
    Command,
    Drawn,
    Event,
    Hello,
    Message,
    Notice,
    Refusal,
    Release,
    Request,
    TakeControl,
    Welcome,
)
from treadle.studio.serving.control import Control
from treadle.studio.serving.session import BEGUN_ANEW, OTHER_VERSION, STUCK_SECONDS, UNANSWERED, Connection, Session
from treadle.studio.topics import Role, Topic
from treadle.studio.wire import encode, from_client, id_of
from treadle.terminal import say

EVENTS_KEPT = 2000
BYTES_KEPT = 2_000_000
"""Events, and bytes of them, that are kept for clients that come back; who was away for longer starts anew."""
CLIENTS_KEPT = 64
"""Clients that are remembered; of those that are away the one that came first is forgotten first."""
POLL_SECONDS = 0.05
NONSENSE = 20
"""Messages that are not understood, after which a connection is closed."""


class Hub:
    """Publishes events to clients and hands their requests to the topics; all on the server's event loop.

    Args:
        name: the run's, or what else is shown.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.instance = secrets.token_hex(8)
        self.topics: list[Topic] = []
        self.control = Control(self.publish)
        self.sessions: OrderedDict[tuple[Role, str], Session] = OrderedDict()
        self._own: dict[type[Request], Callable[[Any, Any], Any]] = {
            TakeControl: lambda request, session: self.control.take(session),
            Release: lambda request, client: self.control.release(client),
        }
        self._handlers = dict(self._own)
        # Higher than any number of an earlier studio, for a client that has one of those.
        self._seq = self._began = int(time.time()) * 100_000
        self._history: deque[tuple[int, str]] = deque()
        self._history_bytes = 0
        self._latest: dict[type[Event], Event] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._somebody = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()

    # From any thread ------------------------------------------------------------------------------------------------

    def publish(self, event: Event) -> None:
        """Tell an event in its order; see `Publisher`."""
        self.soon(lambda: self._publish(event))

    def publish_latest(self, event: Event) -> None:
        """Tell how things stand; see `Publisher`."""
        self.soon(lambda: self._publish_latest(event))

    def add(self, topic: Topic) -> None:
        """Let a topic take part. Raises UsageError where another answers one of its requests already."""
        handlers = topic.handlers()
        for request in handlers:
            if request in self._handlers:
                raise UsageError(f"two topics of the studio answer {request.__name__}: each request has one")
        self._handlers |= handlers
        self.topics.append(topic)

    def begin_anew(self, name: str, topics: Sequence[Topic]) -> None:
        """Show something else from now on: clients are sent away, and come back to find it.

        Raises UsageError where two of the topics answer the same request.
        """
        after = Hub(name)
        for topic in topics:
            after.add(topic)
        self.soon(lambda: self._become(after))

    def log(self, record: Record) -> None:
        """Something was logged."""
        self.soon(lambda: self._each("on_log", record))

    def journal(self, entry: dict[str, Any]) -> None:
        """The journal has a new entry."""
        self.soon(lambda: self._each("on_journal", entry))

    def soon(self, action: Callable[[], None]) -> None:
        """Have it done on the event loop: now, or soon, or when there is one."""
        if threading.get_ident() == self._thread:
            action()
            return
        wake = not self._inbox
        self._inbox.append(action)
        if wake and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._empty_inbox)

    # On the event loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let topics poll while somebody is connected; for the server, as a task of its loop."""
        self._thread, self._loop = threading.get_ident(), asyncio.get_running_loop()
        self._empty_inbox()
        while True:
            await self._somebody.wait()
            self._each("poll")
            for session in self._connected():
                assert session.connection is not None
                if session.connection.check():
                    text = f"{session.label} was cut off: it has read nothing for {STUCK_SECONDS:g} s"
                    self.publish(Notice(text=text, level="warning"))
            await asyncio.sleep(POLL_SECONDS)

    def close(self) -> None:
        """The studio is closed."""
        self._each("close")

    def _become(self, other: Hub) -> None:
        self._each("close")
        self.name, self.instance, self.topics = other.name, other.instance, other.topics
        self._handlers = self._own | {each: how for topic in other.topics for each, how in topic.handlers().items()}
        self._seq += 1
        self._began = self._seq  # of what was told before, nothing counts any more
        self._history.clear()
        self._history_bytes = 0
        self._latest.clear()
        for session in self._connected():
            assert session.connection is not None
            session.connection.close(BEGUN_ANEW, "the studio shows something else now: connect again")

    def _empty_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _each(self, method: str, *arguments: Any) -> None:
        for topic in self.topics:
            try:
                getattr(topic, method)(*arguments)
            except Exception:
                report(f"{type(topic).__name__}.{method}")

    def _connected(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.connected]

    def _publish(self, event: Event) -> None:
        self._seq += 1
        event.seq = self._seq
        text = encode(event)
        self._history.append((event.seq, text))
        self._history_bytes += len(text)
        while len(self._history) > EVENTS_KEPT or self._history_bytes > BYTES_KEPT:
            self._history_bytes -= len(self._history.popleft()[1])
        for session in self._connected():
            session.tell(text)

    def _publish_latest(self, event: Event) -> None:
        event.seq = self._seq
        self._latest[type(event)] = event
        for session in self._connected():
            assert session.connection is not None
            session.connection.put_latest(event)

    # Clients --------------------------------------------------------------------------------------------------------

    def arrive(self, hello: Hello, role: Role, connection: Connection) -> Session | None:
        """Welcome a client; None, and its connection closed, where it speaks another version."""
        if hello.version != VERSION:
            connection.close(OTHER_VERSION, f"the studio speaks version {VERSION}: reload the page")
            return None
        session = self.sessions.setdefault((role, hello.client), Session(hello.client, role))
        self.sessions.move_to_end((role, hello.client))
        self._forget_the_oldest()
        session.label = self._label(hello.label, session)
        session.connect(connection)
        self._each("poll")  # what is told of how things stand is of now
        missed = self._missed(hello.seen)
        session.tell(self._welcome(session, fresh=missed is None))
        if missed is None:
            for topic in self.topics:
                for event in topic.greeting(session):
                    event.seq = self._seq
                    session.tell(event)
        else:
            for text in missed:
                session.tell(text)
        for latest in self._latest.values():
            connection.put_latest(latest)
        self._somebody.set()
        return session

    def leave(self, session: Session, connection: Connection) -> None:
        """A connection has ended; the client may come back."""
        if session.connection is connection:
            session.connection = None
            self._each("on_leave", session)
        if not self._connected():
            self._somebody.clear()

    def _label(self, wanted: str, session: Session) -> str:
        """What the client is called: as it wishes, on one line, and unlike all others."""
        taken = {other.label for other in self.sessions.values() if other is not session}
        label = " ".join("".join(c if c.isprintable() else " " for c in wanted).split()) or "a client"
        return label if label not in taken else next(f"{label} {n}" for n in count(2) if f"{label} {n}" not in taken)

    def _missed(self, seen: int) -> list[str] | None:
        """The events after number `seen`; None where not all of them are there."""
        first = self._history[0][0] if self._history else self._seq + 1
        if seen < max(first - 1, self._began) or seen > self._seq:
            return None
        return [text for seq, text in self._history if seq > seen]

    def _welcome(self, session: Session, *, fresh: bool) -> Welcome:
        lists: dict[str, list[Any]] = {"views": [], "editable": [], "features": []}
        for topic in self.topics:
            for name, more in topic.welcome().items():
                lists[name] += more
            lists["features"] += topic.features
        return Welcome(
            role=session.role,
            run=self.name,
            instance=self.instance,
            fresh=fresh,
            seq=self._seq,
            views=lists["views"],
            editable=lists["editable"],
            features=lists["features"],
        )

    def _forget_the_oldest(self) -> None:
        for key, session in list(self.sessions.items()):
            if len(self.sessions) <= CLIENTS_KEPT:
                return
            if not session.connected:
                del self.sessions[key]
                self.control.forget(session)

    # Requests -------------------------------------------------------------------------------------------------------

    def hear(self, session: Session, text: str | bytes) -> bool:
        """Answer what a client says, now or later; returns whether it was understood."""
        try:
            said: Message = from_client(text)
        except UsageError as error:
            session.tell(Refusal(id=id_of(text), error=str(error)))
            return False
        if isinstance(said, Drawn):
            if session.connection is not None:
                session.connection.drawn(said.frame)
                self._each("on_drawn", session)
        elif isinstance(said, Request):
            self._ask(session, said)
        else:
            session.tell(Notice(text="hello was said already", level="warning"))
        return True

    def _ask(self, session: Session, request: Request) -> None:
        once = isinstance(request, Command | TakeControl | Release)
        if once and not session.begins(request.id):
            return
        handler = self._handlers.get(type(request))
        name = type(request).__name__
        try:
            if handler is None:
                raise UsageError(f"{name}: this studio does not offer that")
            if session.unanswered >= UNANSWERED:
                raise UsageError(f"{UNANSWERED} requests wait for their answers already: wait for some of them")
            if isinstance(request, Command):
                self.control.demand(session)
            result = handler(request, session)
        except Exception as error:
            self._answer(session, _refusal(request, error), once)
            return
        if isinstance(result, Future):
            session.unanswered += 1
            task = asyncio.ensure_future(self._answer_later(session, request, result, once))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        else:
            self._answer_with(session, request, result, once)

    async def _answer_later(self, session: Session, request: Request, future: Future[Any], once: bool) -> None:
        try:
            result = await asyncio.wrap_future(future)
        except (Exception, asyncio.CancelledError) as error:
            self._answer(session, _refusal(request, error), once)
        else:
            self._answer_with(session, request, result, once)
        finally:
            session.unanswered -= 1

    def _answer_with(self, session: Session, request: Request, result: Any, once: bool) -> None:
        if isinstance(result, bytes):
            session.tell(result)
            return
        try:
            self._answer(session, Answer(id=request.id, value=result), once)
        except Exception as error:
            self._answer(session, _refusal(request, error), once)

    def _answer(self, session: Session, answer: Answer | Refusal, once: bool) -> None:
        if once:
            session.answers(answer)
        else:
            session.tell(answer)


def _refusal(request: Request, error: BaseException) -> Refusal:
    if isinstance(error, TreadleError):
        return Refusal(id=request.id, error=one_line(error))
    if isinstance(error, asyncio.CancelledError):
        return Refusal(id=request.id, error="given up: the run has ended")
    report(type(request).__name__, error)
    return Refusal(id=request.id, error=f"internal error ({type(error).__name__}): the studio's terminal has more")


def report(what: str, error: BaseException | None = None) -> None:
    """Say on standard error that something of the studio's own went wrong; the run goes on."""
    error = error or sys.exception()
    assert error is not None
    where = traceback.extract_tb(error.__traceback__)[-1:]
    at = f" at {where[0].filename}:{where[0].lineno}" if where else ""
    say(f"treadle: studio: {what} failed: {one_line(error)}{at}")
