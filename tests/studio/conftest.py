"""A studio on loopback, whose commands are only counted, and raw connections to it."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("msgspec", reason="the studio's packages are not installed: pip install 'treadle[studio]'")

from treadle.studio import protocol
from treadle.studio.address import Place
from treadle.studio.serving.hub import Hub
from treadle.studio.serving.server import Server
from treadle.studio.topics import Topic

PAGE = b"<!doctype html><title>page</title>"


class Counting(Topic):
    """Answers every request there is, and notes which came; `instead` has other answers by type."""

    def __init__(self) -> None:
        self.obeyed: list[protocol.Request] = []
        self.instead: dict[type[protocol.Request], Any] = {}

    def handlers(self) -> Any:
        own = (protocol.TakeControl, protocol.Release)
        return {kind: self._obey for kind in protocol.Requests.__args__ if kind not in own}

    def _obey(self, request: protocol.Request, client: Any) -> Any:
        if type(request) in self.instead:
            return self.instead[type(request)](request, client)
        self.obeyed.append(request)
        return len(self.obeyed)


@dataclass
class Reply:
    """What came back: a status (0 where the connection just ended), headers by name, body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Raw:
    """Speaks to a studio byte by byte.

    Args:
        server: the studio.
    """

    def __init__(self, server: Server) -> None:
        self.server, self.port = server, server.port
        self.host = f"127.0.0.1:{server.port}"
        self.origin = f"http://{self.host}"

    def send(self, data: bytes, timeout: float = 60.0) -> Reply:
        """Send bytes, and read until the studio closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has heard enough
            return parse(read_all(connection))

    def ask(self, method: str, path: str, *headers: str, body: bytes = b"", host: str | None = None) -> Reply:
        """One HTTP request, with Host (unless it is "") and these headers ("Name: value")."""
        head = [f"{method} {path} HTTP/1.1", *([f"Host: {self.host if host is None else host}"] if host != "" else [])]
        if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
            head.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join([*head, *headers, "", ""]).encode("utf-8", "surrogateescape") + body)

    def log_in(self, token: str, *headers: str) -> Reply:
        """POST /login."""
        body = json.dumps({"token": token}).encode()
        own = [] if any(line.startswith("Origin") for line in headers) else [f"Origin: {self.origin}"]
        return self.ask("POST", "/login", "Content-Type: application/json", *own, *headers, body=body)

    def cookie(self, token: str) -> str:
        """A cookie header for a token."""
        return "Cookie: " + self.log_in(token).headers["set-cookie"].partition(";")[0]

    def mute(self, *say: str) -> socket.socket:
        """A client that says this much and then never reads."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", self.port))
        head = [f"GET /socket HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\nConnection: Upgrade"]
        head += [f"Sec-WebSocket-Key: {'A' * 22}==", "Sec-WebSocket-Version: 13"]
        head += [f"Authorization: Bearer {self.server.tokens.control}", "", ""]
        connection.sendall("\r\n".join(head).encode())
        connection.recv(2048)
        connection.sendall(b"".join(map(frame, say)))
        return connection

    def websocket(self, *headers: str, path: str = "/socket", host: str | None = None, say: bytes = b"",
                  until: bytes = b"") -> Reply:  # fmt: skip
        """A WebSocket's handshake and, where it is accepted, these frames.

        After a 101 the body is what the studio said until it closed, or until it has said `until`.
        """
        defaults = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        defaults.append("Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode())
        given = {line.partition(":")[0].lower() for line in headers}
        head = [line for line in defaults if line.partition(":")[0].lower() not in given]
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.host if host is None else host}", *head, *headers, "", ""]
        with socket.create_connection(("127.0.0.1", self.port), 60.0) as connection:
            connection.sendall("\r\n".join(lines).encode())
            data = b""
            while b"\r\n\r\n" not in data and (part := receive(connection)):
                data += part
            if parse(data).status != 101:
                return parse(data + read_all(connection))
            connection.sendall(say)
            while not (self.close_code(parse(data).body) or (until and until in data)) and (
                part := receive(connection)
            ):
                data += part
            return parse(data)

    page = PAGE

    @staticmethod
    def frame(text: str | bytes, opcode: int | None = None) -> bytes:
        """A client's masked WebSocket frame."""
        return frame(text, opcode)

    @staticmethod
    def close_code(body: bytes) -> int:
        """The code of the close frame in what a studio sent; 0 where there is none."""
        return close_code(body)


def frame(text: str | bytes, opcode: int | None = None) -> bytes:
    """A client's masked WebSocket frame."""
    data = text.encode() if isinstance(text, str) else text
    opcode = (1 if isinstance(text, str) else 2) if opcode is None else opcode
    if len(data) < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(data))
    elif len(data) < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(data))
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, len(data))
    return head + b"\0\0\0\0" + data


def close_code(body: bytes) -> int:
    """The code of the close frame at the end of what a studio sent; 0 where there is none."""
    code = 0
    while len(body) >= 2:
        length, start = body[1] & 0x7F, 2
        if length == 126:
            length, start = struct.unpack("!H", body[2:4])[0], 4
        elif length == 127:
            length, start = struct.unpack("!Q", body[2:10])[0], 10
        if body[0] & 0x0F == 8:
            code = struct.unpack("!H", body[start : start + 2])[0]
        body = body[start + length :]
    return code


def receive(connection: socket.socket) -> bytes:
    """What has come; empty where the other side has closed, or says nothing for the socket's timeout."""
    try:
        return connection.recv(65536)
    except (ConnectionError, TimeoutError):
        return b""


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    while part := receive(connection):
        data += part
    return data


def parse(data: bytes) -> Reply:
    """The first answer in what a studio sent."""
    if not data:
        return Reply(0)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Reply(int(first.split()[1]), headers, body)


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., tuple[Raw, Counting]]]:
    """Makes studios that obey nothing but count."""
    servers: list[Server] = []

    def make(place: Place | None = None, **options: Any) -> tuple[Raw, Counting]:
        hub, counting = Hub("<b>run</b>"), Counting()
        hub.add(counting)
        files = {"/": (PAGE, "text/html"), "/app.js": (b"1", "text/javascript")}
        server = Server(hub, place or Place(), **{"files": files, **options})
        servers.append(server)
        server.start()
        return Raw(server), counting

    yield make
    for server in servers:
        server.close()
