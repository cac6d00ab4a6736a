"""Visdom, from the process beside a run: its windows are kept here, and a server is kept up to date with them."""

from __future__ import annotations

import http.client
import json
import math
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.files import file_name
from treadle.runs.metrics import read_metrics
from treadle.sinks.services.service import Opening, Service
from treadle.sinks.services.visdom_windows import Board, Card

DEFAULT_URL = "http://localhost:8097"

ROUND_SECONDS = 1.0
"""Between two rounds of sending what has changed."""
SHARE = 0.2
"""Of its time that the thread spends on sending: with a slow server or many windows, rounds are rarer."""
RETRY_SECONDS = 30.0
"""After a failure it tries again in 1 s, 2 s, 4 s, ..., at last every so many seconds."""
ANSWER_SECONDS = 10.0
"""A server that says nothing for so long has failed."""
CLOSING_SECONDS = 4.0
"""The end of a run waits no longer for what is still to be sent: a second less than it waits for all its services."""
LONGEST_ANSWER = 65536
"""Bytes that are read of an answer: Visdom's is the name of a window."""
LONGEST_PAGE = 64 * 2**20
"""Bytes of one that holds all windows."""


class Refused(Exception):
    """The server has answered, but not that it took what it was sent."""


class VisdomService(Service):
    """Keeps a Visdom server up to date with the windows of a run, whatever becomes of the server.

    A server keeps nothing that this would ask for: the windows are held here, and sent whole. So all that a run has
    logged is to be told again to each process (`RemoteSink.remembers`), and nothing is there twice after a failure, a
    rewind or a resume.
    """

    def __init__(self) -> None:
        self._board = Board()
        self._sender: Sender | None = None
        self._told = False
        self._lost: dict[str, int] = {}

    def open(self, opening: Opening) -> str:
        """Begin to send; returns the page of the run's environment, whether or not there is a server."""
        server = parse_url(opening.options.get("url", DEFAULT_URL))
        environment = opening.options.get("environment") or file_name(opening.run.replace("/", "_"))
        if opening.goes_on and opening.directory is not None:  # in the place of a process that has died
            for line in read_metrics(opening.directory):
                self._board.add_scalars(line["step"], line["values"], line["split"])
        # What an older run of this name has left there would look like this one's.
        begins = opening.step == 0 and not opening.goes_on
        adopts = opening.goes_on and opening.directory is None
        self._sender = Sender(server, environment, self._board, clear=begins, adopt=adopts)
        return f"{server.url}/env/{quote(environment, safe='')}"

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        """Add a point to each line."""
        self._board.add_scalars(step, values, split)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show a picture in the place of its name's last one."""
        self._board.add_card("picture", Card(step, name, picture))

    def text(self, step: int, name: str, text: str) -> None:
        """Show a text in the place of its name's last one."""
        self._board.add_card("text", Card(step, name, text))

    def cut(self, step: int) -> None:
        """Take back the points after this step."""
        self._board.cut(step)

    def trouble(self) -> str:
        """Why the server fails, once; the sender goes on trying."""
        trouble = self._sender.trouble if self._sender is not None else ""
        if not trouble or self._told:
            return ""
        self._told = True
        return trouble

    def close(self, status: str) -> None:
        """Send the rest, for 4 seconds at most."""
        if self._sender is None:
            return
        sender, self._sender = self._sender, None
        sender.close(CLOSING_SECONDS)
        waiting, replaced = self._board.take_counts()
        self._lost = ({"windows not up to date": waiting} if waiting else {}) | replaced
        if waiting and not self._told:
            raise OSError(sender.trouble)

    def lost(self) -> Mapping[str, int]:
        """What the server has never shown, counted."""
        return self._lost


@dataclass(frozen=True)
class Server:
    """Where a server is; `base` is the path in front of its own, "" or "/visdom"."""

    secure: bool
    host: str
    port: int
    base: str

    @property
    def url(self) -> str:
        """Its address as people write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.base}"

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is made with its first request."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=ANSWER_SECONDS)


def parse_url(url: str) -> Server:
    """Read "http://host:8097/base". Raises UsageError for anything that is no such address."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not re.fullmatch(r"[\w.:%-]+", host) or parts.scheme not in ("http", "https"):
        raise UsageError(f"{url!r} is no address of a Visdom server: expected one such as {DEFAULT_URL}")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"{url!r}: a user, query or fragment means nothing here: expected one such as {DEFAULT_URL}")
    secure = parts.scheme == "https"
    return Server(secure, host, port or (443 if secure else 8097), parts.path.rstrip("/"))


class Sender:
    """A thread that keeps a server up to date with a board until it is closed.

    It begins with an empty environment (`clear`), or with the lines that are there (`adopt`).

    Attributes:
        trouble: why the last round failed; empty where it did not.
    """

    def __init__(self, server: Server, environment: str, board: Board, *, clear: bool, adopt: bool = False) -> None:
        self.trouble = ""
        self._server = server
        self._environment = environment
        self._board = board
        self._clear, self._adopt = clear, adopt
        self._failures = 0
        self._connection: http.client.HTTPConnection | None = None
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_sending, name="treadle visdom", daemon=True)
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Send the rest; give it up after so many seconds."""
        self._closing.set()
        self._thread.join(seconds)
        self._abandoned.set()
        if self._thread.is_alive() and not self.trouble:
            self.trouble = f"no answer in {seconds:g} s"

    def _keep_sending(self) -> None:
        pause = 0.0
        while not self._closing.wait(pause):
            pause = self._round()
        self._round()
        with suppress(OSError, http.client.HTTPException, Refused):
            self._post("/save", json.dumps({"data": [self._environment]}))
        self._disconnect()

    def _round(self) -> float:
        """Send what has changed; returns the seconds to wait until the next time."""
        start = time.monotonic()
        try:
            self._send()
        except Exception as error:  # also what is nobody's fault but ours: a thread that died would say nothing
            self._disconnect()
            self._failures += 1
            self.trouble = _describe(error)
            return min(2.0 ** min(self._failures - 1, 30), RETRY_SECONDS)  # a power of thousands is no float
        self._failures, self.trouble = 0, ""
        took = time.monotonic() - start
        return min(max(ROUND_SECONDS, took / SHARE - took), RETRY_SECONDS)

    def _send(self) -> None:
        if self._connection is not None:
            try:
                self._send_changed()
                return
            except (OSError, http.client.HTTPException):
                self._disconnect()  # it was idle for too long, or the server has begun anew
        self._connection = self._server.connect()
        if self._clear:
            self._post(f"/env/{quote(self._environment, safe='')}", json.dumps({"eid": self._environment}))
            self._post("/close", json.dumps({"eid": self._environment, "win": None}))
            self._clear = False
        if self._adopt:
            self._take_over()
            self._adopt = False
        self._board.mark_all()
        self._send_changed()

    def _send_changed(self) -> None:
        """Send each window that has changed; one that is refused does not hold up the others."""
        refusal: Refused | None = None
        for key in self._board.changed():
            taken = self._board.take(key)
            if taken is None:
                continue
            window, change = taken
            head = json.dumps({"eid": self._environment, "win": key, **window.frame()})
            try:
                answer = self._post("/events", f'{head[:-1]}, "data": [{", ".join(window.data())}]}}')
                if answer != key:
                    raise Refused(f"no Visdom server: it answers {answer[:40]!r}")
                self._board.sent(key, change)
            except Refused as error:
                refusal = error
        if refusal is not None:
            raise refusal

    def _take_over(self) -> None:
        """Have the lines that the server shows: of a run in memory nobody else has them any more."""
        try:
            asked = json.dumps({"eid": self._environment, "win": None})
            windows = json.loads(self._post("/win_data", asked, LONGEST_PAGE))
            for key, window in windows.items():
                for line in window["content"]["data"] if key.startswith("plot ") else ():
                    values = [math.nan if value is None else float(value) for value in line["y"]]
                    self._board.adopt(key.removeprefix("plot "), str(line["name"]), [int(x) for x in line["x"]], values)
        except (Refused, ValueError, TypeError, LookupError, AttributeError):
            pass  # there are none, or they are somebody else's

    def _post(self, path: str, body: str, longest: int = LONGEST_ANSWER) -> str:
        """Send one request; returns the answer's text. Raises Refused for an answer that says no."""
        if self._abandoned.is_set() or self._connection is None:
            raise OSError("closed")
        self._connection.request("POST", self._server.base + path, body.encode(), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read(longest)
        if response.status != 200:
            raise Refused(f"it answers {response.status} {response.reason}")
        return answer.decode(errors="replace")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {ANSWER_SECONDS:g} s"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
