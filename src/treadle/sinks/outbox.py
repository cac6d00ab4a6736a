"""What waits to be told to a service: a bounded queue that a training thread only puts things into."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Any

from treadle.sinks.services.wire import head_bytes

MOST_BYTES = 32 << 20
"""Bytes that wait for one service, at most."""
OVERHEAD = 400
"""Bytes that a message takes besides its own."""
LOOSE = ("picture", "scene", "text", "scalars", "event")
"""What is dropped where there is no more room, in this order; of each kind the oldest first."""

_numbers = count(1)


class Message:
    """Something for a service, ready to be sent.

    Attributes:
        kind: what it is: "scalars", "picture" and so on.
        name: of a picture, scene or text.
        step: after how many steps.
        at: its position in the mark: the step, or of an event its time.
        number: those with lower ones were logged before.
    """

    __slots__ = ("at", "body", "fields", "kind", "name", "number", "size", "step")

    def __init__(
        self,
        kind: str,
        step: int,
        fields: Mapping[str, Any] | bytes,
        body: bytes | memoryview = b"",
        *,
        name: str = "",
        at: float | None = None,
    ) -> None:
        """`fields` are what the frame's head says besides what to do, or the head itself."""
        self.kind, self.step, self.name, self.body = kind, step, name, body
        self.at = step if at is None else at
        self.number = next(_numbers)
        self.fields = fields if isinstance(fields, bytes) else head_bytes({"do": kind, **fields})
        self.size = len(self.fields) + len(body) + OVERHEAD


@dataclass
class Gap:
    """Positions that were dropped, of one kind."""

    first: float
    last: float


class Outbox:
    """Messages in their order, within a number of bytes; may be used by any thread.

    Where there is no more room, pictures and scenes go first that have a newer one of their name, then others, then
    texts; scalars and events are kept longest. What is dropped is counted by its kind.

    Attributes:
        dropped: how many of each kind were dropped.
        held: bytes that are held, of messages that wait or were sent and are not done.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._lock = Lock()
        self._waiting: dict[str, deque[Message]] = {kind: deque() for kind in (*LOOSE, "other")}
        self._sent: deque[Message] = deque()
        self._sent_bytes = 0
        self.dropped: Counter[str] = Counter()
        self._gaps: dict[str, Gap] = {}
        self.held = 0

    def put(self, message: Message) -> None:
        """Add a message; others, or itself, are dropped where there is no room."""
        with self._lock:
            self._waiting.get(message.kind, self._waiting["other"]).append(message)
            self.held += message.size
            if self.held > self._most:
                self._make_room()

    def take(self) -> Message | None:
        """The next message; it is held until it is `done`. None where none waits."""
        with self._lock:
            queue = self._first()
            if queue is None:
                return None
            message = queue.popleft()
            self._sent.append(message)
            self._sent_bytes += message.size
            return message

    def on_its_way(self, message: Message) -> Message:
        """Hold a message that is sent without having waited here, until it is `done`; returns it."""
        with self._lock:
            self._sent.append(message)
            self._sent_bytes += message.size
            self.held += message.size
        return message

    def may_send(self, most: int, most_bytes: int) -> bool:
        """Whether fewer than so many messages, and bytes, are sent and not done."""
        with self._lock:
            return len(self._sent) < most and (not self._sent or self._sent_bytes < most_bytes)

    def done(self, count: int) -> None:
        """The first `count` messages of those that were sent are done."""
        with self._lock:
            for _ in range(min(count, len(self._sent))):
                size = self._sent.popleft().size
                self.held -= size
                self._sent_bytes -= size

    @property
    def unanswered(self) -> list[Message]:
        """What was sent and is not done, in its order."""
        with self._lock:
            return list(self._sent)

    def forget(self, message: Message) -> None:
        """Give up a message that was sent: it is lost, and counted."""
        with self._lock:
            self._sent.remove(message)
            self._sent_bytes -= message.size
            self._drop(message)

    def cut(self, step: int) -> None:
        """Leave out what waits of later steps: it is not to be told any more."""
        with self._lock:
            for kind in LOOSE[:-1]:
                queue = self._waiting[kind]
                for message in [message for message in queue if message.step > step]:
                    queue.remove(message)
                    self.held -= message.size

    def drop_all(self) -> None:
        """Drop whatever waits or is not done."""
        with self._lock:
            for queue in (*self._waiting.values(), self._sent):
                while queue:
                    self._drop(queue.popleft())
            self._sent_bytes = 0

    def take_gaps(self) -> dict[str, Gap]:
        """From where to where things were dropped, by their kind, since this was asked last."""
        with self._lock:
            gaps, self._gaps = self._gaps, {}
            return gaps

    @property
    def left(self) -> Counter[str]:
        """How many of each kind wait, or are not done."""
        with self._lock:
            return Counter(message.kind for queue in (*self._waiting.values(), self._sent) for message in queue)

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not any(self._waiting.values())

    def _first(self) -> deque[Message] | None:
        queues = [queue for queue in self._waiting.values() if queue]
        return min(queues, key=lambda queue: queue[0].number) if queues else None

    def _make_room(self) -> None:
        for kind in ("picture", "scene", "text"):
            queue = self._waiting[kind]
            newest = {message.name: message.number for message in queue}
            for message in [message for message in queue if newest[message.name] != message.number]:
                if self.held <= self._most:
                    return
                queue.remove(message)
                self._drop(message)
        for kind in LOOSE:
            queue = self._waiting[kind]
            while queue and self.held > self._most:
                self._drop(queue.popleft())

    def _drop(self, message: Message) -> None:
        self.held -= message.size
        if message.kind in LOOSE:
            self.dropped[message.kind] += 1
            gap = self._gaps.setdefault(message.kind, Gap(message.at, message.at))
            gap.first, gap.last = min(gap.first, message.at), max(gap.last, message.at)
