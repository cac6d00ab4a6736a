"""Hostile requests: of everything that a browser's page, another user or another machine may try, nothing is obeyed."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
import urllib.parse
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from treadle.studio.protocol import Hello, Pause, Stop
from treadle.studio.serving import ends, guard
from treadle.studio.serving import server as server_module
from treadle.studio.serving.guard import HEADERS
from treadle.studio.wire import encode

HELLO = encode(Hello(version=1, client="0" * 32, label="<script>alert(1)</script>"))
COMMANDS = [encode(Pause(id=1)), encode(Stop(id=2))]
BY_UVICORN = frozenset({400, 413, 414, 431, 501, 503})
"""Answers that uvicorn gives to what is no HTTP, before anything of ours sees it."""


@dataclass
class Case:
    """A hostile request, and the statuses that are proper answers; 0 is a connection that is closed."""

    name: str
    proper: frozenset[int]
    method: str = "GET"
    path: str = ""
    """By default that of the page, or of the WebSocket."""
    headers: list[str] = field(default_factory=list)
    host: str | None = None
    body: bytes = b""
    websocket: bool = False
    raw: bytes = b""

    def __post_init__(self) -> None:
        self.path = self.path or ("/socket" if self.websocket else "/")


def wrong_hosts(port: int) -> list[str]:
    return [
        "evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", f"evil.example#127.0.0.1:{port}",
        f"localhost.evil.example:{port}", f"127.0.0.1:{port}.evil.example", f"127.0.0.1:{port + 1}", "127.0.0.1",
        "localhost", f"0.0.0.0:{port}", f"127.1:{port}", f"2130706433:{port}", f"0x7f000001:{port}", f"[::]:{port}",
        f"127.0.0.1:{port}, evil.example", f"user@127.0.0.1:{port}", f"127.0.0.1:0{port}", f"LOCALHOST.:{port}",
        f"127.0.0.1:{port}/", f"169.254.169.254:{port}", f"127.0.0.2:{port}", f"localhost:{port}@evil.example",
        "*", "null",
    ]  # fmt: skip


def wrong_origins(port: int) -> list[str]:
    return [
        "null", "http://evil.example", f"http://evil.example:{port}", f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port + 1}", "http://127.0.0.1", "http://localhost", "file://", "",
        f"http://127.0.0.1:{port}.evil.example", f"http://127.0.0.1.evil.example:{port}", f"HTTP://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{port} http://evil.example", f"http://user@127.0.0.1:{port}",
        "chrome-extension://abcdef", f"ws://127.0.0.1:{port}", f"http://[::ffff:127.0.0.1]:{port}", "*", "undefined",
        f"http://127.0.0.1:{port}#", f"http://127.0.0.1:{port}\\@evil.example", f"http://localhost.:{port}",
        "about:blank",
    ]  # fmt: skip


def wrong_tokens(token: str) -> list[str]:
    return [
        "", "x", token[:-1], token[1:], token + "x", token + "\\u0000", token.swapcase(), token[::-1], "null",
        "undefined",
        "true", " " + token, token + " ", "' OR 1=1 --", "*", "%00", "../../etc/passwd", "a" * 3000,
    ]  # fmt: skip


def traversals() -> list[str]:
    up = ["..", "%2e%2e", "%2E%2E", ".%2e", "%252e%252e", "%c0%ae%c0%ae", "..%00", "..;", "%u002e%u002e", "....//.."]
    slash = ["/", "%2f", "%5c", "\\", "%252f", "//"]
    paths = [f"/{(u + s) * 8}etc{s}passwd" for u, s in itertools.product(up, slash)]
    paths += [f"/static{s}{u}{s}hub.py" for u, s in itertools.product(up[:4], slash[:4])]
    paths += [
        "/etc/passwd", "//etc/passwd", "///etc/passwd", "/./app.js", "/app.js/", "/app.js%00", "/app.js%00.html",
        "/APP.JS",
        "/app.js~", "/.git/config", "/.env", "/index.html", "/static/index.html", "/runs", "/config.yaml",
        "/%2e/app.js",
        "/app.js;x", "/app.js%20", "/~root", "/proc/self/environ", "/file:///etc/passwd", "/C:/Windows/win.ini",
        "/socket/x",
        "/a" * 500, "/%", "/%zz", "/\u00fc", "/login/../app.js",
    ]  # fmt: skip
    return paths


def cases(raw, other_cookie: str) -> list[Case]:
    """All of them, for one studio; `other_cookie` is a good cookie of another."""
    port, token, origin = raw.port, raw.server.tokens.control, f"Origin: {raw.origin}"
    cookie = raw.cookie(token)
    name, value = cookie.removeprefix("Cookie: ").split("=", 1)
    bearer = f"Authorization: Bearer {token}"
    as_json = "Content-Type: application/json"
    good = b'{"token": "%s"}' % token.encode()
    refused, closed = frozenset({400, 401, 403, 404, 405, 413, 415, 421, 426, 429}), frozenset({0, 400})
    found: list[Case] = []

    for host in wrong_hosts(port):
        found.append(Case(f"host {host}", frozenset({400, 421}), host=host))
        found.append(Case(f"socket at host {host}", frozenset({400, 421}), host=host, headers=[bearer], websocket=True))
    found.append(Case("no host", closed, host=""))
    found.append(Case("two hosts", frozenset({400}), headers=["Host: evil.example"]))
    found.append(Case("absolute address", frozenset({400, 404, 421}), path="http://evil.example/", host="evil.example"))

    for wrong in wrong_origins(port):
        found.append(Case(f"page at origin {wrong}", frozenset({403}), headers=[f"Origin: {wrong}"]))
        found.append(Case(f"login at origin {wrong}", frozenset({403}), "POST", "/login",
                          [as_json, f"Origin: {wrong}"], body=good))  # fmt: skip
        found.append(
            Case(f"socket at origin {wrong}", frozenset({403}), headers=[cookie, f"Origin: {wrong}"], websocket=True)
        )
        found.append(
            Case(f"program at origin {wrong}", frozenset({403}), headers=[bearer, f"Origin: {wrong}"], websocket=True)
        )
    found.append(Case("socket without origin", frozenset({403}), headers=[cookie], websocket=True))
    found.append(Case("login without origin", frozenset({403}), "POST", "/login", [as_json], body=good))
    found.append(Case("logout without origin", frozenset({403}), "POST", "/logout", [cookie]))
    found.append(Case("two origins", frozenset({400}), headers=[origin, "Origin: http://evil.example"]))

    for wrong in (other_cookie, f"Cookie: {name}", f"Cookie: {name}=", f"Cookie: {name}={value[:-1]}",
                  f"Cookie: {name}={value}x", f"Cookie: treadle={value}", f"Cookie: treadle-{port}={value}",
                  f"Cookie: {name}={token}", f"Cookie: {name.upper()}={value}", f"Cookie: x{name}={value}",
                  f'Cookie: {name}="{value}"', f"X-Cookie: {name}={value}",
                  f"Cookie: {name}={value[::-1]}"):  # fmt: skip
        found.append(
            Case(f"cookie {wrong}", frozenset({101}), headers=[wrong, origin], websocket=True)
        )  # closed by 1008
        found.append(Case(f"logout with cookie {wrong}", frozenset({401}), "POST", "/logout", [wrong, origin]))
    found.append(Case("socket without cookie", frozenset({101}), headers=[origin], websocket=True))

    quoted = urllib.parse.quote(token)
    for query in (f"token={quoted}", f"access_token={quoted}", f"Authorization=Bearer%20{quoted}", "token=", "x"):
        found.append(Case(f"socket with query {query[:9]}", frozenset({400}), path=f"/socket?{query}", headers=[origin],
                          websocket=True))  # fmt: skip
        found.append(Case(f"login with query {query[:9]}", frozenset({400}), "POST", f"/login?{query}", [as_json,
                          origin],
                          body=b"{}"))  # fmt: skip

    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "POST", "get", "FOO"):
        found.append(Case(f"method {method}", refused, method, "/" if method != "CONNECT" else f"127.0.0.1:{port}"))
        found.append(Case(f"method {method} of a file", refused, method, "/app.js", [cookie, origin]))
    for method, path in (
        ("GET", "/login"),
        ("HEAD", "/login"),
        ("PUT", "/login"),
        ("GET", "/logout"),
        ("DELETE", "/logout"),
    ):
        found.append(Case(f"{method} {path}", refused, method, path, [cookie, origin]))
    for path in ("/socket", "/socket/", "//socket"):
        found.append(Case(f"no handshake at {path}", refused, "GET", path, [bearer]))
    for path in ("/", "/login", "/app.js", "/ws", "/socket/", "//socket", "/socket/../socket"):
        found.append(Case(f"handshake at {path}", refused, path=path, headers=[bearer], websocket=True))

    for path in traversals():
        found.append(Case(f"path {path[:40]}", frozenset({0, 400, 404}), path=path, headers=[cookie]))

    for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"token": 1}', b'{"token": null}',
            b'{"token": ["x"]}',
                 b"[" * 2000, b'{"tok": "x"}', b"token=" + token.encode(), b'{"token": {"token": "x"}}'):  # fmt: skip
        found.append(Case(f"login {body[:20]!r}", frozenset({400}), "POST", "/login", [as_json, origin], body=body))
    found.append(Case("long login", frozenset({413}), "POST", "/login", [as_json, origin], body=b" " * 5000 + good))
    chunk = b"1400\r\n" + b" " * 5120 + b"\r\n0\r\n\r\n"
    found.append(Case("long chunks", frozenset({413}), "POST", "/login",
                      [as_json, origin, "Transfer-Encoding: chunked"], body=chunk))  # fmt: skip
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonp"):
        found.append(
            Case(f"login as {kind}", frozenset({415}), "POST", "/login", [f"Content-Type: {kind}", origin], body=good)
        )

    for wrong in ("chat", "treadle.2", "treadle.1x", "TREADLE.1", f"bearer.{token}"):
        found.append(Case(f"subprotocol {wrong[:10]}", frozenset({400}), headers=[bearer,
                          f"Sec-WebSocket-Protocol: {wrong}"],
                          websocket=True))  # fmt: skip
    for header in ("Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: short", "Upgrade: h2c", "Connection: close"):
        found.append(Case(f"handshake with {header}", refused | closed, headers=[bearer, header], websocket=True))

    for header in (f"Authorization: Basic {token}", f"Authorization: {token}", f"Authorization: Bearer{token}",
                   "Authorization: ", "Authorization: Bearer"):  # fmt: skip
        found.append(Case(f"program with {header[:22]}", frozenset({401}), headers=[header], websocket=True))
    found.append(Case("two tokens", frozenset({400}), headers=[bearer, bearer], websocket=True))
    for header in ("X-Forwarded-Host: evil.example", "X-Forwarded-For: 127.0.0.1", "Forwarded: host=evil.example",
                   "X-Original-URL: /socket", "X-HTTP-Method-Override: DELETE",
                   "X-Forwarded-Proto: https"):  # fmt: skip
        found.append(Case(header, frozenset({421}), headers=[header], host="evil.example"))

    post = f"POST /login HTTP/1.1\r\nHost: {raw.host}\r\n{origin}\r\n{as_json}\r\n".encode()
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    get = f"GET / HTTP/1.1\r\nHost: {raw.host}\r\n"
    for what, data in {
        "long header": get.encode() + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
        "many headers": get.encode() + b"".join(b"X%d: %s\r\n" % (n, b"a" * 50) for n in range(700)) + b"\r\n",
        "long path": b"GET /" + b"a" * 40_000 + f" HTTP/1.1\r\nHost: {raw.host}\r\n\r\n".encode(),
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        "nonsense": bytes(range(256)) * 4,
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/0.9": b"GET /\r\n\r\n",
        "folded": get.encode() + b"X: a\r\n b\r\n" + b"Origin: http://evil.example\r\n\r\n",
        "space before colon": get.encode() + b"Origin : http://evil.example\r\n\r\n",
        "NUL in a header": get.encode() + b"X: a\0b\r\n\r\n",
        "bare line feeds": f"GET / HTTP/1.1\nHost: {raw.host}\nOrigin: http://evil.example\n\n".encode(),
        "both lengths": post + b"Content-Length: 4\r\n" + chunked + b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "two lengths": post + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "negative length": post + b"Content-Length: -1\r\n\r\n",
        "a second request behind": (get + "\r\n").encode() + b"GET /socket HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    }.items():  # fmt: skip
        proper = BY_UVICORN | {0, 400, 403, 421} | ({200} if what == "a second request behind" else set())
        found.append(Case(what, frozenset(proper), raw=data))
    return found


def test_nothing_hostile_is_obeyed_read_or_left_unanswered(serve, monkeypatch):
    monkeypatch.setattr(ends, "REQUEST_SECONDS", 60.0)  # what is not answered before is left unanswered
    monkeypatch.setattr(server_module, "HELLO_SECONDS", 60.0)
    raw, counting = serve()
    other, _ = serve()
    other_cookie = other.cookie(other.server.tokens.control)
    hostile = cases(raw, other_cookie)
    assert len(hostile) >= 300
    say = b"".join(map(raw.frame, [HELLO, *COMMANDS]))
    secret = [re.compile(rb"root:.*:0:0"), re.compile(rb"class Hub"), raw.server.tokens.control.encode()]
    wrong: list[str] = []
    for case in hostile:
        began = time.monotonic()
        if case.raw:
            reply = raw.send(case.raw)
        elif case.websocket:
            reply = raw.websocket(*case.headers,
            path=case.path if case.path != "/" or case.name == "handshake at /" else
                                  "/socket", host=case.host, say=say)  # fmt: skip
        else:
            reply = raw.ask(case.method, case.path, *case.headers, body=case.body, host=case.host)
        told = f"{case.name}: {reply.status} {reply.body[:60]!r}"
        if reply.status not in case.proper or time.monotonic() - began > 30.0:
            wrong.append(told)
        if reply.status == 101 and (raw.close_code(reply.body) != 1008 or b"welcome" in reply.body):
            wrong.append(f"{told}: let in")
        if any(each.search(reply.body) if isinstance(each, re.Pattern) else each in reply.body for each in secret):
            wrong.append(f"{told}: read")
        ours = reply.status not in BY_UVICORN | {0, 101} and not case.websocket
        if ours and any(reply.headers.get(name) != value for name, value in HEADERS.items()):
            wrong.append(f"{told}: headers")
    assert not wrong, "\n".join(wrong)
    assert counting.obeyed == []


def test_tokens_that_are_nearly_right_open_nothing(serve, monkeypatch):
    monkeypatch.setattr(guard, "FAILURES", 1000)
    monkeypatch.setattr(server_module, "HELLO_SECONDS", 0.1)  # two are right but for spaces around them
    raw, counting = serve()
    token = raw.server.tokens.control
    for wrong in wrong_tokens(token):
        header = wrong.encode("ascii", "replace").decode().replace("\0", "")
        assert raw.log_in(wrong).status == 401, wrong
        reply = raw.websocket(f"Authorization: Bearer {header}")
        assert reply.status == 401 or header.strip() == token, wrong
    assert counting.obeyed == []


def test_a_page_of_another_site_that_rebinds_its_name_is_refused(serve):
    """Its name now leads here: Origin and Host agree with one another, and with nothing that is allowed."""
    raw, counting = serve()
    evil = f"evil.example:{raw.port}"
    cookie = raw.cookie(raw.server.tokens.control)
    for headers in ([f"Origin: http://{evil}"], [f"Origin: http://{evil}", cookie]):
        assert raw.ask("GET", "/", *headers, host=evil).status == 421
        assert raw.websocket(*headers, host=evil).status == 421
    assert counting.obeyed == []


def test_what_a_client_calls_itself_is_text(serve):
    raw, _ = serve()
    bearer = f"Authorization: Bearer {raw.server.tokens.control}"
    said = raw.websocket(bearer, say=raw.frame(HELLO), until=b'"welcome"').body
    assert b'"run":"<b>run</b>"' in said  # as JSON, for textContent
    page = raw.ask("GET", "/")
    assert b"<b>run" not in page.body and "script-src 'self';" in page.headers["content-security-policy"]


def test_slow_and_many_connections_are_bounded(serve, monkeypatch):
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 12)
    raw, counting = serve()
    threads = set(threading.enumerate())
    with ExitStack() as open_ones:
        for seconds in (0.5, 2.0, 8.0, 32.0):  # enough, however slow the machine is, to ask before they are closed
            monkeypatch.setattr(ends, "REQUEST_SECONDS", seconds)
            slow = [open_ones.enter_context(socket.create_connection(("127.0.0.1", raw.port))) for _ in range(30)]
            for n, each in enumerate(slow):
                with suppress(OSError):  # it is closed by now
                    each.sendall([b"GET / HTTP/1.1\r\n", b"POST /login HTTP/1.1\r\nHost: ", b""][n % 3])
            if (status := raw.ask("GET", "/").status) == 503:
                break
        assert status == 503  # that is all it takes of an attack on one's own machine
        deadline = time.monotonic() + 60
        while (status := raw.ask("GET", "/").status) != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert status == 200  # those that said nothing in time were closed
        for each in slow:
            each.settimeout(60)
            with suppress(ConnectionResetError):  # what it had sent was not read to its end
                assert each.recv(1) == b""
        begun = set(threading.enumerate()) - threads
    assert counting.obeyed == [] and len(begun) < 5  # none for a connection
