"""The server: the page's files, logging in, and the WebSocket, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Mapping
from json import JSONDecodeError, loads
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from treadle.errors import UsageError
from treadle.studio.address import Place
from treadle.studio.protocol import Hello
from treadle.studio.serving.ends import Http, WebSocketEnd
from treadle.studio.serving.guard import (
    LOG_IN_FIRST,
    LONGEST_BODY,
    SUBPROTOCOL,
    App,
    Guard,
    Login,
    Receive,
    Refused,
    Scope,
    Send,
    Tokens,
)
from treadle.studio.serving.hub import NONSENSE, Hub
from treadle.studio.serving.page import NOT_BUILT, static_files
from treadle.studio.serving.session import LOGGED_OUT, UNINTELLIGIBLE, Connection
from treadle.studio.wire import from_client

LONGEST_MESSAGE = 64 * 1024
"""Bytes of a client's message."""
MOST_CONNECTIONS = 64
HELLO_SECONDS = 10.0
MESSAGES_PER_SECOND, BURST = 200.0, 400.0
"""What is read of one connection: whoever sends more waits, not the run."""
PING_SECONDS, PONG_SECONDS = 10.0, 20.0
CLOSING_SECONDS = 2.0


class Server:
    """Serves a hub's clients at a place.

    Args:
        hub: who is connected and what they ask.
        place: where to listen.
        token, view_token: what opens it, for those who control and those who look; None makes new ones.
        files: the page; by default the one that comes with Treadle.

    Raises:
        UsageError: the place is taken.
    """

    def __init__(
        self,
        hub: Hub,
        place: Place,
        *,
        token: str | None = None,
        view_token: str | None = None,
        files: Mapping[str, tuple[bytes, str]] | None = None,
    ) -> None:
        self.hub, self.place = hub, place
        self._files = static_files() if files is None else dict(files)
        self._listener = place.listen()
        at: Any = self._listener.getsockname()
        self.port: int = at[1] if isinstance(at, tuple) else 8765  # of a Unix socket: the one that a tunnel suggests
        self.tokens = Tokens(
            token or secrets.token_urlsafe(32),
            view_token or secrets.token_urlsafe(32),
            f"treadle-{self.port}-{hub.instance}",
        )
        self._connections: dict[Connection, Login] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._uvicorn = uvicorn.Server(self._config())
        self._thread = threading.Thread(target=self._run, name="treadle-studio", daemon=True)

    @property
    def url(self) -> str:
        """The page's address with the token that gives control, in the fragment, which no browser sends anywhere."""
        return f"{self.place.url(self.port)}#token={self.tokens.control}"

    @property
    def view_url(self) -> str:
        """The address for those who may only look."""
        return f"{self.place.url(self.port)}#token={self.tokens.view}"

    def start(self) -> None:
        """Begin to serve; returns once it does."""
        self._thread.start()
        self._started.wait(10.0)

    def close(self) -> None:
        """End every connection and the thread."""
        if self._loop is None or not self._thread.is_alive():
            self._listener.close()
            return
        self._uvicorn.should_exit = True
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSING_SECONDS + 3.0)

    def revoke(self) -> None:
        """End every login: pages have to be opened by their address again. Programs' connections end too."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._revoke)

    def _revoke(self) -> None:
        self.tokens.revoke()
        for connection in list(self._connections):
            connection.close(LOGGED_OUT, "logged out")

    def _config(self) -> uvicorn.Config:
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # hostile requests are no news on the terminal
        routes = [
            WebSocketRoute("/socket", self._talk),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/logout", self._log_out, methods=["POST"]),
            Route("/{path:path}", self._file, methods=["GET", "HEAD"]),
        ]
        guard = Guard(
            _at_path(Starlette(routes=routes)),
            self.tokens,
            frozenset(self.place.hosts(self.port)),
            frozenset(self.place.allowed_origins(self.port)),
            self.place.root,
        )
        self._guard = guard
        return uvicorn.Config(
            guard,
            loop="asyncio",
            http=Http,
            ws=WebSocketEnd,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws_max_size=LONGEST_MESSAGE,
            ws_per_message_deflate=False,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PONG_SECONDS,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=16 * 1024,
            timeout_graceful_shutdown=int(CLOSING_SECONDS),
        )

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        polling = asyncio.ensure_future(self.hub.run())
        self._loop.call_soon(self._started.set)
        try:
            await self._uvicorn.serve(sockets=[self._listener])
        finally:
            polling.cancel()
            self.hub.close()
            self._listener.close()
            if self.place.socket is not None:
                self.place.socket.unlink(missing_ok=True)

    # What is asked of it ------------------------------------------------------------------------------------------

    async def _file(self, request: Request) -> Response:
        path = request.state.path
        if path == "/" and path not in self._files:
            return PlainTextResponse(NOT_BUILT + "\n", 503)
        if path not in self._files:
            return PlainTextResponse("there is nothing here\n", 404)
        content, kind = self._files[path]
        return Response(content, media_type=kind)

    async def _log_in(self, request: Request) -> Response:
        """Exchange the token for a cookie."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_BODY:
                return PlainTextResponse("too long\n", 413)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return PlainTextResponse('expected JSON: {"token": "..."}\n', 415)
        try:
            token = loads(body)["token"]
        except (JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError):
            token = None
        if not isinstance(token, str):
            return PlainTextResponse('expected {"token": "..."}\n', 400)
        try:
            role = self._guard.role_for(token)
        except Refused as refused:
            return PlainTextResponse(refused.why + "\n", refused.status, refused.headers)
        response = Response(status_code=204)
        response.set_cookie(
            self.tokens.cookie,
            self.tokens.log_in(role),
            path=self.place.root + "/",
            httponly=True,
            samesite="strict",
            secure=request.headers.get("origin", "").startswith("https://"),
        )
        return response

    async def _log_out(self, request: Request) -> Response:
        """End the login of this cookie, and its connections."""
        login: Login = request.state.login
        self.tokens.log_out(login.key)
        for connection, theirs in list(self._connections.items()):
            if theirs.key == login.key:
                connection.close(LOGGED_OUT, "logged out")
        response = Response(status_code=204)
        response.delete_cookie(self.tokens.cookie, path=self.place.root + "/")
        return response

    async def _talk(self, websocket: WebSocket) -> None:
        """One connection, from its hello to its end."""
        offered = websocket.scope["subprotocols"]
        await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        login: Login | None = websocket.scope["state"]["login"]
        if login is None:  # a browser tells its page why a WebSocket was closed, but not why it was not opened
            await websocket.close(LOGGED_OUT, LOG_IN_FIRST)
            return
        connection = Connection(websocket, websocket.scope["state"]["transport"].abort)
        self._connections[connection] = login
        sending = asyncio.ensure_future(connection.run())
        hearing = asyncio.ensure_future(self._hear(websocket, connection, login))
        try:
            await asyncio.wait((sending, hearing), return_when=asyncio.FIRST_COMPLETED)
            if hearing.done() and connection.closing is not None:
                await asyncio.wait((sending,), timeout=CLOSING_SECONDS)
        finally:
            del self._connections[connection]
            for task in (sending, hearing):
                task.cancel()
            await asyncio.gather(sending, hearing, return_exceptions=True)

    async def _hear(self, websocket: WebSocket, connection: Connection, login: Login) -> None:
        hub, session, nonsense = self.hub, None, 0
        allowance, loop = BURST, asyncio.get_running_loop()
        at = loop.time()
        try:
            try:
                hello = from_client(await asyncio.wait_for(_message(websocket), HELLO_SECONDS))
            except (TimeoutError, UsageError) as error:
                connection.close(UNINTELLIGIBLE, f"expected hello: {error}"[:120].encode("ascii", "replace").decode())
                return
            if not isinstance(hello, Hello):
                connection.close(UNINTELLIGIBLE, "expected hello first")
                return
            session = hub.arrive(hello, login.role, connection)
            while session is not None and connection.closing is None:
                text = await _message(websocket)
                now = loop.time()
                allowance, at = min(BURST, allowance + (now - at) * MESSAGES_PER_SECOND) - 1.0, now
                if allowance < 0.0:
                    await asyncio.sleep(-allowance / MESSAGES_PER_SECOND)
                if not hub.hear(session, text):
                    nonsense += 1
                    if nonsense >= NONSENSE:
                        connection.close(UNINTELLIGIBLE, "not understood, too often")
        except WebSocketDisconnect:
            pass
        finally:
            if session is not None:
                hub.leave(session, connection)


async def _message(websocket: WebSocket) -> str | bytes:
    """The next message, whatever its kind. Raises WebSocketDisconnect."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1005)
    text = message.get("text")
    result: str | bytes = message.get("bytes") or b"" if text is None else text
    return result


def _at_path(app: App) -> App:
    """Let the routes see the path without a proxy's prefix."""

    async def at_path(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "path": scope["state"]["path"], "root_path": ""}
        await app(scope, receive, send)

    return at_path
