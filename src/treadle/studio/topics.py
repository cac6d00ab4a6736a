"""Topics: what a studio is made of. Each is one feature: the requests it answers, the events it tells.

Everything of a topic is called on the server's event loop and has to return at once. What touches the run goes through
`Commands` and returns a future; slow work on files goes to `later` and returns its future too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from treadle.engine.command import Command
from treadle.engine.events import Record
from treadle.engine.loop import Loop
from treadle.engine.subject import Subject
from treadle.studio.protocol import Event, Frame, Request

T = TypeVar("T")
Role = Literal["view", "control"]

Handler = Callable[[Any, "Client"], Any]
"""Called with a request and who asks. What it returns, or the future that it returns comes to, is the answer: plain
data, or bytes made by `wire.pack`, which are sent as a binary message. TreadleErrors are refusals with their line; any
other error is one that says "internal error", is reported on standard error, and ends nothing."""


class Client(Protocol):
    """Who asks: a browser's tab or a program, over all its connections."""

    id: str
    label: str
    role: Role
    """"view" may look; "control" may also take control."""

    @property
    def in_control(self) -> bool:
        """Whether it holds the run's control."""

    @property
    def connected(self) -> bool:
        """Whether it is there; one that was cut off may come back."""

    @property
    def credits(self) -> int:
        """How many frames may be sent to it now, 0 to 2: it acknowledges those that it has drawn."""

    def show(self, frame: Frame, data: bytes) -> None:
        """Send a frame. Without credits it waits, and takes the place of the one that waited for the same pane."""


class Publisher(Protocol):
    """The way to tell every client something; may be called from any thread, and never waits."""

    def publish(self, event: Event) -> None:
        """Tell an event in its order; it is numbered, and kept for clients that come back."""

    def publish_latest(self, event: Event) -> None:
        """Tell how things stand: a client only needs the newest event of this type, new clients are told it too."""

    def soon(self, action: Callable[[], None]) -> None:
        """Have something done on the server's event loop, where clients may be shown frames."""


class Topic:
    """One feature. Override what it needs."""

    features: ClassVar[Sequence[str]] = ()
    """What the page may offer where this topic is there, for `Welcome.features`."""

    def handlers(self) -> Mapping[type[Request], Handler]:
        """The requests it answers, each by one topic only."""
        return {}

    def welcome(self) -> Mapping[str, list[Any]]:
        """What it adds to the lists "views", "editable" and "features" of `Welcome`."""
        return {}

    def greeting(self, client: Client) -> Sequence[Event]:
        """Events for a client that is new or has been away for too long; what `publish_latest` told is sent anyway."""
        return ()

    def poll(self) -> None:
        """Called 20 times a second while somebody looks."""

    def on_log(self, record: Record) -> None:
        """Something was logged."""

    def on_journal(self, entry: Mapping[str, Any]) -> None:
        """The run's journal has a new entry."""

    def on_drawn(self, client: Client) -> None:
        """A client has drawn a frame, so that it has a credit more."""

    def on_leave(self, client: Client) -> None:
        """A client's connection has ended."""

    def close(self) -> None:
        """The studio is closed."""


class Commands(Protocol):
    """The way to have something done to the run between two steps; never waits.

    It is `Commands` as the studio needs it: what is asked of a run that has ended is carried out in the thread that
    waits in `Studio.wait`, and never in the server's.
    """

    def put(self, command: Command, client: str = "") -> Future[Any]:
        """Have a command obeyed; `client` is the label that the journal names."""

    def __len__(self) -> int:
        """How many wait."""

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called between two steps, as validation is; the run is the same with it or without."""


@dataclass
class Live:
    """The run that is trained in this process. Topics should take those of its parts that they use."""

    name: str
    path: Path | None
    """Its directory, where it is on disk."""
    subject: Subject
    loop: Loop
    """To be read: counters, lifecycle, parts, logbook. Whatever changes goes through `commands`."""
    commands: Commands
    publisher: Publisher
    busy: str = ""
    """What is under way that ends first, such as "tile"; for `State`."""
    drawing: float = 0.0
    """The share of time that went into drawing of late; for `State`."""


_work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
_starting = threading.Lock()
_worker: threading.Thread | None = None


def later(function: Callable[[], T]) -> Future[T]:
    """Have slow work done (files, tables) in a thread of its own, one piece after the other; returns its future."""
    global _worker
    future: Future[T] = Future()
    _work.put((function, future))
    with _starting:
        if _worker is None or not _worker.is_alive():  # a forked process has the variable, but not the thread
            _worker = threading.Thread(target=_do_work, name="treadle-studio-files", daemon=True)
            _worker.start()
    return future


def _do_work() -> None:
    while True:
        function, future = _work.get()
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
        del function, future  # not kept until the next piece of work comes
