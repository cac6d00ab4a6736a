"""The ends of connections: those that dawdle are cut, and those that are closed are closed at once."""

from __future__ import annotations

from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets import websockets_sansio_impl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from treadle.studio.serving.apart import draw_apart

draw_apart(websockets_sansio_impl)

REQUEST_SECONDS, ANSWER_SECONDS = 10.0, 60.0
"""A connection that has not made its request by then, or not taken the answer, is closed."""


class Http(H11Protocol):
    """Closes a connection that does not make its request, or take its answer, in time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._check_request)

    def _check_request(self) -> None:
        if self.cycle is None or not self.cycle.response_started:
            self.transport.abort()
        else:
            self._deadline = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        _end(self.transport)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._deadline.cancel()
        super().handle_websocket_upgrade(event)


class WebSocketEnd(WebSocketsSansIOProtocol):
    """Lets the application end a connection at once: closing waits for a client that does not read."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        with suppress(AttributeError):  # a handshake that is none has no scope
            self.scope["state"]["transport"] = self.transport

    def connection_lost(self, exc: Exception | None) -> None:
        _end(self.transport)
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # it is refused: no error that would have to be logged

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


def _end(transport: Any) -> None:
    """End a connection for the other side too: processes that were forked meanwhile, to load data, hold it as well."""
    with suppress(OSError):  # it has ended already
        transport.get_extra_info("socket").shutdown(SHUT_RDWR)
