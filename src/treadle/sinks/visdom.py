"""A Visdom server that shows a run: curves, the newest pictures, texts."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from treadle.errors import UsageError
from treadle.files import file_name
from treadle.images.display import to_uint8
from treadle.runs.metrics import read_metrics
from treadle.sinks.base import Sink
from treadle.sinks.visdom_windows import Board, Card
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

DEFAULT_URL = "http://localhost:8097"

ROUND_SECONDS = 1.0
"""Between two rounds of sending what has changed."""
SHARE = 0.2
"""Of its time that the thread spends on sending: with a slow server or many windows, rounds are rarer."""
RETRY_SECONDS = 30.0
"""After a failure it tries again in 1 s, 2 s, 4 s, ..., at last every so many seconds."""
ANSWER_SECONDS = 10.0
"""A server that says nothing for so long has failed."""
CLOSING_SECONDS = 5.0
"""The end of a run waits no longer for what is still to be sent."""
LONGEST_ANSWER = 65536
"""Bytes that are read of an answer: Visdom's is the name of a window."""


class Refused(Exception):
    """The server has answered, but not that it took what it was sent."""


class Visdom(Sink):
    """Shows a run on a Visdom server: curves over steps, the newest picture and text of each name.

    Loss terms share a window, so do their weights, and the learning rates; every other metric has one, with a line for
    "train", "epoch" and "validation". The windows are in an environment named after the run: `runs/line/v001` is
    "line_v001". When the run ends the server is asked to keep it on disk.

    Training only notes what is to be shown, within bounded memory; a thread of its own sends it, so no server can delay
    a step or end a run. One that is away, mute or begins anew gets all there is to see when it is back. Windows are
    sent whole, so nothing is there twice after a failure, a rewind or a resume. What was never shown (a picture that a
    newer one replaced before it could be sent) is counted in the journal. Closing takes 5 seconds at most.

    Args:
        url: the server; without a port it is 8097 (443 for https).
        environment: its name; by default the run's, or the trainer's class for a run that is not on disk.

    Raises:
        UsageError: `url` is no address of a server.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[Visdom("http://localhost:8097")])
    """

    def __init__(self, url: str = DEFAULT_URL, environment: str | None = None) -> None:
        self.server = parse_url(url)
        self.environment = environment
        self._board = Board()
        self._sender: Sender | None = None
        self._trainer: Trainer | None = None
        self._goes_on = False
        self._told = False

    def open(self, trainer: Trainer) -> None:
        """Begin to send; what a resumed run has logged before is read from its metrics.jsonl."""
        self._trainer = trainer
        if self.environment is None:
            name = type(trainer).__name__ if trainer.run is None else trainer.run.name
            self.environment = file_name(name.replace("/", "_"))
        if self._goes_on and self._board.empty and trainer.run is not None:
            for line in read_metrics(trainer.run.path):  # what is taken again has been cut off there
                self._board.add_scalars(line["step"], line["values"], line["split"])
        # What an older run of this name has left there would look like this one's.
        new = self._board.empty and not self._goes_on
        self._sender = Sender(self.server, self.environment, self._board, clear=new)

    def close(self) -> None:
        """Send the rest, for 5 seconds at most, and say what could not be shown."""
        if self._sender is None or self._trainer is None:
            return
        sender, self._sender = self._sender, None
        sender.close(CLOSING_SECONDS)
        waiting, dropped = self._board.take_counts()
        if waiting:
            what = f"{waiting} window{'' if waiting == 1 else 's'} not up to date ({sender.trouble})"
            say(f"treadle: Visdom at {self.server.url}: {what}")
            dropped["windows not up to date"] = waiting
        if dropped:
            self._trainer.note("not shown by Visdom", counts=dropped)

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Take back what was logged after this step."""
        self._goes_on = True
        self._board.cut(trainer.progress.step)

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Add a point to each line."""
        self._board.add_scalars(step, values, split)
        self._tell_trouble()

    def image(self, step: int, name: str, picture: Any) -> None:
        """Show a picture in the place of its name's last one."""
        # A copy: what is logged may share its memory with a tensor that training goes on to change.
        self._board.add_card("picture", Card(step, name, to_uint8(picture, name).copy()))
        self._tell_trouble()

    def text(self, step: int, name: str, text: str) -> None:
        """Show a text in the place of its name's last one."""
        self._board.add_card("text", Card(step, name, text))
        self._tell_trouble()

    def _tell_trouble(self) -> None:
        """Say once that the server fails; the sender leaves that to the trainer's own thread."""
        trouble = self._sender.trouble if self._sender is not None else ""
        if trouble and not self._told and self._trainer is not None:
            self._told = True
            say(f"treadle: Visdom at {self.server.url}: {trouble}; the run goes on, and tries again")
            self._trainer.note("Visdom failed", url=self.server.url, error=trouble)


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

    Attributes:
        trouble: why the last round failed; empty where it did not.
    """

    def __init__(self, server: Server, environment: str, board: Board, *, clear: bool) -> None:
        self.trouble = ""
        self._server = server
        self._environment = environment
        self._board = board
        self._clear = clear
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

    def _post(self, path: str, body: str) -> str:
        """Send one request; returns the answer's text. Raises Refused for an answer that says no."""
        if self._abandoned.is_set() or self._connection is None:
            raise OSError("closed")
        self._connection.request("POST", self._server.base + path, body.encode(), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read(LONGEST_ANSWER)
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
