"""Who gets in: tokens for cookies, cookies with an origin, and nobody else."""

from __future__ import annotations

import pytest

from treadle.errors import UsageError
from treadle.studio.address import Place
from treadle.studio.client import StudioClient
from treadle.studio.protocol import Hello, Pause
from treadle.studio.serving import guard
from treadle.studio.serving.guard import HEADERS, Tokens
from treadle.studio.wire import encode

HELLO = encode(Hello(version=1, client="0" * 32))


@pytest.fixture(scope="module")
def studio(serve):
    return serve()


def test_the_page_is_for_everybody_and_holds_no_secret(studio):
    raw, _ = studio
    reply = raw.ask("GET", "/")
    assert (reply.status, reply.body) == (200, raw.page)
    assert {name: reply.headers[name] for name in HEADERS} == HEADERS
    assert "server" not in reply.headers
    assert raw.ask("HEAD", "/app.js").headers["content-type"].startswith("text/javascript")


def test_a_token_is_exchanged_for_a_cookie_that_scripts_cannot_read(studio):
    raw, counting = studio
    reply = raw.log_in(raw.server.tokens.control)
    assert reply.status == 204
    cookie = reply.headers["set-cookie"]
    name, attributes = cookie.partition("=")[0], {part.strip().lower() for part in cookie.split(";")[1:]}
    assert name == f"treadle-{raw.port}-{raw.server.hub.instance}"
    assert attributes == {"httponly", "samesite=strict", "path=/"}
    assert raw.server.tokens.control not in cookie
    header = f"Cookie: {cookie.partition(';')[0]}"
    said_first = raw.frame(HELLO) + raw.frame(encode(Pause(id=1)))
    before = len(counting.obeyed)
    said = raw.websocket(header, f"Origin: {raw.origin}", say=said_first, until=b'"answer"')
    assert said.status == 101 and b'"role":"control"' in said.body and b"&lt;" not in said.body
    assert len(counting.obeyed) == before + 1

    assert raw.websocket(header).status == 403  # a cookie needs an origin
    assert raw.websocket(header, "Origin: null").status == 403
    assert raw.ask("POST", "/logout", header, f"Origin: {raw.origin}").status == 204
    refused = raw.websocket(header, f"Origin: {raw.origin}", say=said_first)
    assert raw.close_code(refused.body) == 1008
    assert len(counting.obeyed) == before + 1


def test_the_second_token_only_looks(studio):
    raw, counting = studio
    before = len(counting.obeyed)
    with StudioClient(raw.server.view_url) as client:
        assert client.welcome.role == "view"
        for ask in (client.pause, client.take_control):
            with pytest.raises(UsageError, match="may only view"):
                ask()
    assert len(counting.obeyed) == before


def test_a_wrong_token_or_none_is_no_client(serve):
    raw, _ = serve()
    for address in (raw.origin + "/", f"{raw.origin}/#token=wrong"):
        with pytest.raises(UsageError, match="401"):
            StudioClient(address)


def test_after_too_many_wrong_tokens_nobody_is_let_in_for_a_while(serve, monkeypatch):
    raw, _ = serve()
    statuses = [raw.log_in(f"wrong{n}").status for n in range(guard.FAILURES + 2)]
    assert statuses == [401] * guard.FAILURES + [429] * 2
    right = raw.log_in(raw.server.tokens.control)
    assert right.status == 429 and 0 < int(right.headers["retry-after"]) <= 61
    monkeypatch.setattr(guard, "FAILURE_SECONDS", 0.0)
    assert raw.log_in(raw.server.tokens.control).status == 204


def test_all_logins_can_be_revoked(serve):
    raw, counting = serve()
    header = raw.cookie(raw.server.tokens.control)
    with StudioClient(raw.server.url) as client:
        raw.server.revoke()
        assert list(client.events(60)) == []  # the connection ends
    assert raw.close_code(raw.websocket(header, f"Origin: {raw.origin}", say=raw.frame(HELLO)).body) == 1008
    assert counting.obeyed == []


def test_behind_a_proxy_its_origin_counts_and_its_prefix_goes(serve):
    raw, _ = serve(Place(root="/user/ada", origins=("https://hub.example.org",)))
    assert raw.ask("GET", "/user/ada/app.js").body == raw.ask("GET", "/app.js").body == b"1"
    assert raw.ask("GET", "/user/adam/app.js").status == 404
    reply = raw.log_in(raw.server.tokens.control, "Origin: https://hub.example.org")
    assert reply.status == 204 and "Path=/user/ada/;" in reply.headers["set-cookie"] + ";"
    assert "Secure" in reply.headers["set-cookie"]
    assert raw.log_in(raw.server.tokens.control, "Origin: http://hub.example.org").status == 403
    assert raw.ask("GET", "/", host="hub.example.org").status == 200
    with StudioClient(f"{raw.origin}/user/ada/#token={raw.server.tokens.control}") as client:
        assert client.welcome.role == "control"


def test_a_unix_socket_is_for_its_owner_alone(serve, tmp_path):
    path = tmp_path / "it.socket"
    raw, counting = serve(Place(socket=path))
    assert path.stat().st_mode & 0o777 == 0o600
    with StudioClient(path, raw.server.tokens.control) as client:
        client.pause()
    assert len(counting.obeyed) == 1
    with pytest.raises(UsageError, match="another program listens"):
        Place(socket=path).listen()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no socket"):
        Place(socket=tmp_path / "file").listen()
    raw.server.close()
    assert not path.exists()


def test_a_busy_port_is_an_error_that_names_the_remedy(studio):
    raw, _ = studio
    with pytest.raises(UsageError, match=rf"port {raw.port} of 127.0.0.1 is taken: choose another with --studio-port"):
        Place(port=raw.port).listen()


WRONG = [
    *({"root": root} for root in ("x", "/x/", "//x")),
    *({"origins": (origin,)} for origin in ("hub.example.org", "https://hub.example.org/x", "https://*", "ftp://x")),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_place_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        Place(**wrong)


def test_tokens_are_compared_whole_and_cookies_kept_hashed():
    tokens = Tokens("abcdef", "vwxyz", "cookie")
    assert [tokens.check(token) for token in ("abcdef", "vwxyz", "abcde", "abcdefg", "", "ABCDEF")] == [
        "control", "view", None, None, None, None,
    ]  # fmt: skip
    value = tokens.log_in("view")
    login = tokens.login_of(value)
    assert login is not None and login.role == "view" and value not in repr(tokens)
    for _ in range(guard.LOGINS_KEPT):
        tokens.log_in("control")
    assert tokens.login_of(value) is None  # the oldest goes


def test_a_page_that_has_not_been_built_says_so_in_one_line(serve):
    raw, _ = serve(files={})
    reply = raw.ask("GET", "/")
    assert reply.status == 503 and reply.body.count(b"\n") == 1 and b"make studio" in reply.body
