"""A studio's client in Python: what a browser can do, from a script or a test."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from treadle.errors import RunError, UsageError
from treadle.studio import protocol
from treadle.studio.extra import need_extra
from treadle.studio.protocol import (
    VERSION,
    Answer,
    Drawn,
    Event,
    Frame,
    Hello,
    Message,
    Refusal,
    Request,
    State,
    Welcome,
)
from treadle.studio.serving.apart import draw_apart
from treadle.studio.serving.guard import SUBPROTOCOL
from treadle.studio.wire import encode, from_studio, unpack

EVENTS_KEPT = 10_000
"""Events that wait to be read; the oldest are given up first."""

R = TypeVar("R", bound=Event)


class StudioClient:
    """Drives and looks at a run through its studio, as a browser does. All methods may be called from any thread.

    Args:
        address: what the studio has printed, with the token; or the path of its Unix socket.
        token: where the address has none.
        label: how others see it.
        timeout: seconds to wait for an answer; None waits as long as it takes.
        client: what it calls itself, 32 hexadecimal digits, to go on as one that was cut off; by default new.
        on_frame: called, in a thread of the client's, with each frame of what was asked for by `Watch`, and the bytes
            of its picture. When it returns the frame counts as drawn, and the next ones come.

    Attributes:
        address: of the studio, without the token.
        welcome: what the studio said first: role, views, what can be edited.
        state: how the run stands, as last told; None until it was.

    Raises:
        UsageError: nothing listens there, or the token is wrong.

    Example:
        with StudioClient(studio.url) as client:
            client.pause()
            client.advance(3)
            print(client.state.step, client.state.metrics)
            client.run_until("loss < 0.1")
            client.watch("fit", width=640, height=480)
            frame, pixels = client.frame()
    """

    welcome: Welcome
    state: State | None

    def __init__(
        self,
        address: str | Path,
        token: str | None = None,
        *,
        label: str = "StudioClient",
        timeout: float | None = 60.0,
        client: str | None = None,
        on_frame: Callable[[Frame, bytes | memoryview], object] | None = None,
    ) -> None:
        need_extra()
        self.address = urlsplit(str(address))._replace(fragment="")
        from websockets.exceptions import WebSocketException

        self._timeout, self._on_frame = timeout, on_frame
        self.id = client or secrets.token_hex(16)
        self._last_id = time_ns() // 1000  # higher than those that a client of this id has used before
        self._frames: dict[int, list[tuple[Frame, bytes]]] = {}
        self._answers: dict[int, Future[Any]] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._news = threading.Condition()
        self.state = None
        self._ended: str | None = None
        self._open = ExitStack()
        try:
            self._socket = self._open.enter_context(_connect(address, token))
            self._socket.send(encode(Hello(version=VERSION, client=self.id, label=label)))
            first = from_studio(self._socket.recv(timeout))
        except (OSError, WebSocketException, TimeoutError) as error:
            raise UsageError(f"no studio answers at {str(address).partition('#')[0]}: {error}") from None
        assert isinstance(first, Welcome)
        self.welcome = first
        self._reader = threading.Thread(target=self._read, name="treadle-studio-client", daemon=True)
        self._reader.start()

    # Asking ---------------------------------------------------------------------------------------------------------

    def send(self, request: Request) -> Future[Any]:
        """Send a request, whose `id` is set here; returns the future of its answer.

        Raises RunError where the connection has ended, saying why.
        """
        from websockets.exceptions import ConnectionClosed

        future: Future[Any] = Future()
        with self._news:
            if self._ended is not None:
                raise RunError(f"the connection to the studio has ended ({self._ended})")
            self._last_id += 1
            request.id = self._last_id
            self._answers[request.id] = future
        try:
            self._socket.send(encode(request))
        except ConnectionClosed as error:  # just now: the thread that reads has not said so yet
            raise RunError(f"the connection to the studio has ended ({error})") from None
        return future

    def request(self, request: Request) -> Any:
        """Send a request and wait for its answer: plain data, or header and bytes.

        Raises UsageError with the studio's line where it refuses, TimeoutError where the answer takes too long.
        """
        return self.send(request).result(self._timeout)

    def pause(self) -> None:
        """Take no further step."""
        self.request(protocol.Pause(id=0))

    def play(self) -> None:
        """Go on."""
        self.request(protocol.Play(id=0))

    def advance(self, steps: int = 1, unit: str = "steps") -> Any:
        """Take so many steps, or epochs, then pause; returns once that is so."""
        return self.request(protocol.Advance(id=0, steps=steps, unit=unit))  # type: ignore[arg-type]

    def run_until(self, until: str) -> Any:
        """Go on until something is so, such as "loss < 0.1" or "step 500", then pause; returns once it is."""
        return self.request(protocol.RunUntil(id=0, until=until))

    def take_control(self) -> None:
        """Hold the run's control from now on, whoever had it."""
        self.request(protocol.TakeControl(id=0))

    def watch(self, view: str, **fields: Any) -> None:
        """Ask for frames of a view (`welcome.views` has the names), with fields of `Watch`: pane, width, height ..."""
        self.request(protocol.Watch(id=0, view=view, **fields))

    def frame(self, pane: int = 0, timeout: float | None = 60.0) -> tuple[Frame, NDArray[np.uint8]]:
        """The newest frame of a pane that was not had yet, and its pixels (height, width, 3); waits for one.

        Frames wait until they are had: the studio sends two at most, and draws no more meanwhile. With `on_frame` they
        go there instead. Raises TimeoutError where none comes in time.
        """
        from PIL import Image

        with self._news:
            self._news.wait_for(lambda: self._frames.get(pane) or self._ended is not None, timeout)
            come = self._frames.pop(pane, [])
        if not come:
            raise TimeoutError(f"no frame of pane {pane} has come within {timeout} s")
        for header, _ in come:
            self._socket.send(encode(Drawn(frame=header.frame)))
        header, data = come[-1]
        return header, np.asarray(Image.open(BytesIO(data)).convert("RGB"))

    # Listening ------------------------------------------------------------------------------------------------------

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """The events so far that were not read yet, and those that come, until none has come for `timeout` seconds.

        None waits for ever, and ends with the connection.
        """
        while (event := self._next_event(timeout)) is not None:
            yield event

    def wait_for(self, kind: type[R], timeout: float | None = 60.0) -> R:
        """The next event of a type. Raises TimeoutError where none comes in time."""
        until = None if timeout is None else monotonic() + timeout
        while True:
            event = self._next_event(None if until is None else max(0.0, until - monotonic()))
            if event is None:
                raise TimeoutError(f"the studio has told no {kind.__name__} within {timeout} s")
            if isinstance(event, kind):
                return event

    def wait_until(self, condition: Callable[[State], bool], timeout: float | None = 60.0) -> State:
        """Wait until the run stands so; returns how it does. Raises TimeoutError where it does not in time."""
        with self._news:
            so = self._news.wait_for(lambda: self.state is not None and condition(self.state), timeout)
            if not so or self.state is None:
                raise TimeoutError(f"the run does not stand so within {timeout} s: {self.state}")
            return self.state

    def _next_event(self, timeout: float | None) -> Event | None:
        with self._news:
            self._news.wait_for(lambda: self._events or self._ended is not None, timeout)
            return self._events.popleft() if self._events else None

    def close(self) -> None:
        """End the connection; what was asked and not answered is refused."""
        self._open.close()
        self._reader.join(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        why = "closed"
        try:
            for data in self._socket:
                self._take(data)
        except ConnectionClosed as error:
            why = str(error)
        with self._news:
            self._ended = why
            waiting, self._answers = self._answers, {}
            self._news.notify_all()
        for future in waiting.values():
            future.set_exception(RunError(f"the connection to the studio has ended ({why})"))

    def _take(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            header, body = unpack(data)
            if isinstance(header, Frame):
                if self._on_frame is not None:
                    self._on_frame(header, body)
                    self._socket.send(encode(Drawn(frame=header.frame)))
                else:
                    with self._news:
                        self._frames.setdefault(header.pane, []).append((header, bytes(body)))
                        self._news.notify_all()
                return
            self._answer(header.id, (header, body))
            return
        told: Message = from_studio(data)
        if isinstance(told, Refusal):
            self._answer(told.id, error=UsageError(told.error))
        elif isinstance(told, Answer):
            self._answer(told.id, told.value)
        elif isinstance(told, Event):
            with self._news:
                if isinstance(told, State):
                    self.state = told
                self._events.append(told)
                self._news.notify_all()

    def _answer(self, id: int, value: Any = None, error: Exception | None = None) -> None:
        with self._news:
            future = self._answers.pop(id, None)
        if future is None:
            return
        with suppress(Exception):  # it was cancelled
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)


def _connect(address: str | Path, token: str | None) -> Any:
    """The WebSocket of a studio."""
    from websockets.sync import connection
    from websockets.sync.client import connect, unix_connect
    from websockets.typing import Subprotocol

    draw_apart(connection)
    parts = urlsplit(str(address))
    token = token or parts.fragment.partition("token=")[2]
    options: dict[str, Any] = {
        "additional_headers": {"Authorization": f"Bearer {token}"},
        "subprotocols": [Subprotocol(SUBPROTOCOL)],
        "compression": None,
        "max_size": None,
        "proxy": None,
        "user_agent_header": None,
    }
    if parts.scheme in ("http", "https"):
        scheme = "wss" if parts.scheme == "https" else "ws"
        return connect(f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/socket", **options)
    return unix_connect(parts.path, uri="ws://localhost:8765/socket", **options)
