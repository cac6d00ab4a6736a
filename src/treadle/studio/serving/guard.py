"""The guard: every request, of HTTP and of WebSockets alike, passes it before anything else sees it.

It is a list of what is allowed. A request has one Host, of the list; an Origin, where it has one, of the list; no
query. What does anything (logging in, the WebSocket) needs the token: a browser hands it over once, by POST /login,
for a cookie that scripts cannot read, and must say an Origin with it; a program sends it as a Bearer token each time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from treadle.studio.topics import Role

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "connection": "close",  # each connection has one request, and a time in which it has to come
}
"""On every answer, errors included."""

SUBPROTOCOL = "treadle.1"
LOG_IN_FIRST = "log in first: open the address that the studio has printed"
FAILURES, FAILURE_SECONDS = 10, 60.0
"""Wrong tokens in so many seconds, after which nobody may log in until some of them are past."""
LOGINS_KEPT = 100
LONGEST_HEADERS, LONGEST_PATH = 16 * 1024, 2048
LONGEST_BODY = 4096
"""Bytes of a request's body; only a login has one."""


@dataclass(frozen=True)
class Login:
    """Somebody who has shown a token. `key` tells logins apart, to revoke one."""

    role: Role
    key: str


@dataclass
class Tokens:
    """The tokens, the logins that came of them, and the wrong ones of late.

    Attributes:
        control, view: the two tokens.
        cookie: the cookie's name: cookies ignore the port, so the name has it, and the studio's instance.
    """

    control: str
    view: str
    cookie: str
    _logins: OrderedDict[str, Login] = field(default_factory=OrderedDict)
    _wrong: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))

    @property
    def shut(self) -> float:
        """Seconds for which no token is looked at, after too many wrong ones; 0 as a rule."""
        if len(self._wrong) < FAILURES:
            return 0.0
        return max(0.0, self._wrong[0] + FAILURE_SECONDS - monotonic())

    def check(self, token: str) -> Role | None:
        """What a token allows; None, and counted, where it is none of ours."""
        given = _hash(token)
        allowed: Role | None = None
        for role, known in (("view", self.view), ("control", self.control)):
            if hmac.compare_digest(given, _hash(known)):
                allowed = role  # type: ignore[assignment]
        if allowed is None:
            self._wrong.append(monotonic())
        return allowed

    def log_in(self, role: Role) -> str:
        """Begin a login; returns the cookie's value, of which only a hash is kept."""
        value = secrets.token_urlsafe(32)
        self._logins[_hash(value).hex()] = Login(role, secrets.token_hex(8))
        while len(self._logins) > LOGINS_KEPT:
            self._logins.popitem(last=False)
        return value

    def login_of(self, value: str) -> Login | None:
        """The login that a cookie's value stands for."""
        return self._logins.get(_hash(value).hex())

    def log_out(self, key: str) -> None:
        """End a login."""
        self._logins = OrderedDict((hashed, login) for hashed, login in self._logins.items() if login.key != key)

    def revoke(self) -> None:
        """End all logins."""
        self._logins.clear()


class Refused(Exception):
    """A request that does not pass: its status, and a line that says why."""

    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers or {}


@dataclass(frozen=True)
class Guard:
    """Lets a request through to `app`, or answers it; every answer gets `HEADERS`.

    Attributes:
        app: what is guarded; it finds who asks in `scope["state"]["login"]`: a `Login`, or None for a page of ours that
            has not logged in, or no longer is.
        tokens: who may log in.
        hosts: the values that Host may have. "localhost:*" and the like allow every port, for a Unix socket.
        origins: the values that Origin may have, the same way.
        root: the prefix that a proxy puts before every path, or empty.
    """

    app: App
    tokens: Tokens
    hosts: Collection[str]
    origins: Collection[str]
    root: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refused as refused:
            await answer(scope, send, refused.status, refused.why, refused.headers)
            return
        await self.app(scope, receive, _with_headers(send))

    def _check(self, scope: Scope) -> None:
        """Raise Refused, or leave the login in the scope."""
        if len(scope["raw_path"]) > LONGEST_PATH:
            raise Refused(414, "the path is too long")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > LONGEST_HEADERS:
            raise Refused(431, "the headers are too long")
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = _only(headers, "host")
        if host is None or not _allowed(host, self.hosts):
            raise Refused(421, "this is not the address of a studio")
        origin = _only(headers, "origin")
        if origin is not None and not self._same_origin(origin, host):
            raise Refused(403, "a page of another origin may not ask this")
        path = self._path(scope)
        scope["state"] = {**scope.get("state", {}), "path": path, "login": None}
        websocket = scope["type"] == "websocket"
        if websocket != (path == "/socket"):
            raise Refused(404 if websocket else 426, "the studio's WebSocket is at socket, and nothing else is")
        if path in ("/socket", "/login", "/logout"):
            if scope["query_string"]:
                raise Refused(400, "no query is understood here")
            self._check_who(scope, headers, origin)
        if websocket and scope["subprotocols"] and SUBPROTOCOL not in scope["subprotocols"]:
            raise Refused(400, f"the studio speaks {SUBPROTOCOL}")

    def _same_origin(self, origin: str, host: str) -> bool:
        """Whether an origin is of the list; with the port of the request, where the list allows every port."""
        if origin in self.origins:
            return True
        any_port = _allowed(origin, [known for known in self.origins if known.endswith(":*")])
        return any_port and origin.partition("://")[2] == host

    def _path(self, scope: Scope) -> str:
        path: str = scope["path"]
        if self.root and (path == self.root or path.startswith(self.root + "/")):
            path = path[len(self.root) :]
        return path or "/"

    def _check_who(self, scope: Scope, headers: dict[str, list[str]], origin: str | None) -> None:
        """Who asks for what does anything: by a Bearer token, or by a cookie and an origin."""
        bearer = _only(headers, "authorization")
        if bearer is not None:
            scope["state"]["login"] = Login(self.role_of(bearer), "")
            return
        if origin is None:
            raise Refused(403, "a browser says where its page comes from, and a program sends its token as Bearer")
        cookie = self._cookie(headers)
        login = self.tokens.login_of(cookie) if cookie else None
        scope["state"]["login"] = login
        if login is None and scope["state"]["path"] == "/logout":
            raise Refused(401, LOG_IN_FIRST)

    def role_of(self, bearer: str) -> Role:
        """What an Authorization header allows. Raises Refused."""
        scheme, _, token = bearer.partition(" ")
        if scheme.lower() != "bearer":
            raise Refused(401, "expected Authorization: Bearer")
        return self.role_for(token)

    def role_for(self, token: str) -> Role:
        """What a token allows. Raises Refused for a wrong one, and for any after too many wrong ones."""
        if self.tokens.shut:
            raise Refused(429, "too many wrong tokens: wait", {"retry-after": str(int(self.tokens.shut) + 1)})
        role = self.tokens.check(token)
        if role is None:
            raise Refused(401, "the token is wrong: open the address that the studio has printed")
        return role

    def _cookie(self, headers: dict[str, list[str]]) -> str | None:
        for header in headers.get("cookie", []):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == self.tokens.cookie:
                    return value
        return None


async def answer(scope: Scope, send: Send, status: int, line: str, headers: dict[str, str] | None = None) -> None:
    """Answer with a line of text; of a WebSocket that is not accepted, too."""
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    body = (line + "\n").encode() if status != 204 else b""
    told = {**HEADERS, "content-type": "text/plain; charset=utf-8", **(headers or {}), "content-length": str(len(body))}
    if scope.get("method") == "HEAD":
        body = b""
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
    await send({"type": f"{kind}.start", "status": status, "headers": pairs})
    await send({"type": f"{kind}.body", "body": body})


def _with_headers(send: Send) -> Send:
    extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            own = [(name, value) for name, value in message.get("headers", []) if name.decode().lower() not in HEADERS]
            message = {**message, "headers": [*own, *extra]}
        await send(message)

    return sending


def _only(headers: dict[str, list[str]], name: str) -> str | None:
    """The one value of a header; None where it is not there. Raises Refused where it is there twice."""
    values = headers.get(name, [])
    if len(values) > 1:
        raise Refused(400, f"{name} is given {len(values)} times")
    return values[0] if values else None


def _allowed(value: str, known: Collection[str]) -> bool:
    if value in known:
        return True
    head, _, port = value.rpartition(":")
    return port.isascii() and port.isdigit() and len(port) <= 5 and f"{head}:*" in known


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
