"""One client: what it has asked and been answered, over all its connections; and what is on its way to it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol

from treadle.studio.protocol import Answer, Event, Frame, Message, Refusal, State
from treadle.studio.topics import Role
from treadle.studio.wire import encode, pack

FRAMES_UNDER_WAY = 2
"""Frames that a client may have been sent and not yet have drawn."""
MOST_HELD = 1_500_000
"""Bytes that may wait for a client that reads slowly; beyond, it is sent away, and comes back for what it missed."""
STUCK_SECONDS = 30.0
"""A client that has read nothing for so long is sent away."""
ANSWERS_KEPT = 256
"""Answers to commands, for clients that were cut off before they had them."""
UNANSWERED = 100
"""Requests of one client that may be under way at once."""

LOGGED_OUT, BEGUN_ANEW, OTHER_VERSION, REPLACED, TOO_SLOW, UNINTELLIGIBLE = 1008, 1012, 4000, 4001, 4002, 4003
"""Why the studio closes a connection, as WebSocket codes; after the first three it makes no sense to come again."""


class Socket(Protocol):
    """What a connection needs of a WebSocket."""

    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...


class Connection:
    """What is on its way to a client: answers and events in their order, then how things stand, then frames.

    Args:
        socket: where it goes.
        abort: ends the connection at once, whatever the socket still holds.
    """

    def __init__(self, socket: Socket, abort: Callable[[], None]) -> None:
        self._socket, self._abort = socket, abort
        self._waiting: deque[str | bytes] = deque()
        self._held = 0
        self._latest: dict[type[Event], Event] = {}
        self._frames: OrderedDict[int, tuple[Frame, bytes]] = OrderedDict()
        self._drawing: set[int] = set()
        self._arrived = asyncio.Event()
        self._sending_since: float | None = None
        self.closing: tuple[int, str] | None = None
        self.in_control = False
        """Whether its client holds control: `State` says so."""

    @property
    def credits(self) -> int:
        """How many frames may be sent now."""
        return FRAMES_UNDER_WAY - len(self._drawing) - len(self._frames)

    @property
    def held(self) -> int:
        """Bytes that wait here."""
        return self._held + sum(len(data) for _, data in self._frames.values())

    def put(self, message: str | bytes) -> None:
        """Send this after all that waits."""
        if self.closing is not None:
            return
        self._waiting.append(message)
        self._held += len(message)
        if self._held > MOST_HELD:
            self.close(TOO_SLOW, "too slow: come back for what was missed")
        self._arrived.set()

    def put_latest(self, event: Event) -> None:
        """Send this instead of what waits of its type."""
        if self.closing is not None:
            return
        self._latest[type(event)] = event
        self._arrived.set()

    def show(self, frame: Frame, data: bytes) -> None:
        """Send this frame, with the next credit, instead of the one that waits for its pane."""
        if self.closing is not None:
            return
        self._frames[frame.pane] = (frame, data)
        self._arrived.set()

    def drawn(self, frame: int) -> None:
        """A frame has been drawn."""
        self._drawing.discard(frame)
        self._arrived.set()

    def close(self, code: int, reason: str) -> None:
        """Say why and go; what waits is given up."""
        self.closing = self.closing or (code, reason)
        self._waiting.clear()
        self._latest.clear()
        self._frames.clear()
        self._held = 0
        self._arrived.set()

    def check(self) -> bool:
        """End it at once where nothing of it was read for long; returns whether that was so now."""
        if self._sending_since is None or monotonic() - self._sending_since <= STUCK_SECONDS:
            return False
        self._sending_since = None
        self._abort()
        return True

    async def run(self) -> None:
        """Send what comes until it is closed."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while (message := self._next()) is not None:
                if isinstance(message, str):
                    await self._timed(self._socket.send_text(message))
                else:
                    await self._timed(self._socket.send_bytes(message))
            if self.closing is not None:
                await self._timed(self._socket.close(*self.closing))
                return

    async def _timed(self, sending: Awaitable[None]) -> None:
        self._sending_since = monotonic()
        await sending
        self._sending_since = None

    def _next(self) -> str | bytes | None:
        if self._waiting:
            message = self._waiting.popleft()
            self._held -= len(message)
            return message
        if self._latest:
            event = self._latest.pop(next(iter(self._latest)))
            if isinstance(event, State):
                event.in_control = self.in_control  # the one field that is not the same for all
            return encode(event)
        if self._frames and len(self._drawing) < FRAMES_UNDER_WAY:
            _, (frame, data) = self._frames.popitem(last=False)
            self._drawing.add(frame.frame)
            return pack(frame, data)
        return None


class Session:
    """A client, as topics see it, and its memory of answers: each command is obeyed once, however often it is sent.

    Args:
        id: what it calls itself.
        role: what its token allows.
    """

    def __init__(self, id: str, role: Role) -> None:
        self.id, self.role = id, role
        self.label = ""
        self.connection: Connection | None = None
        self.unanswered = 0
        self._answers: OrderedDict[int, str | None] = OrderedDict()
        self._forgotten = -1

    @property
    def in_control(self) -> bool:
        """Whether it holds the run's control."""
        return self._in_control

    @in_control.setter
    def in_control(self, value: bool) -> None:
        self._in_control = value
        if self.connection is not None:
            self.connection.in_control = value

    _in_control = False

    @property
    def connected(self) -> bool:
        """Whether it is there."""
        return self.connection is not None

    @property
    def credits(self) -> int:
        """How many frames may be sent to it now."""
        connection = self.connection  # which may end meanwhile: frames are drawn by another thread
        return 0 if connection is None else max(0, connection.credits)

    def show(self, frame: Frame, data: bytes) -> None:
        """Send a frame."""
        if self.connection is not None:
            self.connection.show(frame, data)

    def connect(self, connection: Connection) -> None:
        """It is here again; what is left of a former connection is closed."""
        if self.connection is not None:
            self.connection.close(REPLACED, "the same client has connected again")
        self.connection = connection
        connection.in_control = self._in_control

    def tell(self, message: Message | str | bytes) -> None:
        """Send something, where it is there to get it."""
        if self.connection is not None:
            self.connection.put(encode(message) if isinstance(message, Message) else message)

    # Exactly once ---------------------------------------------------------------------------------------------------

    def begins(self, id: int) -> bool:
        """Whether command `id` is to be obeyed now. One that was sent before is not: its answer is sent again."""
        if id in self._answers:
            answer = self._answers[id]
            if answer is not None:
                self.tell(answer)
            return False  # else it is under way, and answered in time
        if id <= self._forgotten:
            self.tell(Refusal(id=id, error="this was asked and answered long ago: ask anew, with a higher id"))
            return False
        self._answers[id] = None
        return True

    def answers(self, answer: Answer | Refusal) -> None:
        """Send the answer of a command, and remember it."""
        text = encode(answer)
        self._answers[answer.id] = text
        answered = [id for id, known in self._answers.items() if known is not None]
        for id in answered[: max(0, len(answered) - ANSWERS_KEPT)]:
            del self._answers[id]
            self._forgotten = max(self._forgotten, id)
        self.tell(text)
