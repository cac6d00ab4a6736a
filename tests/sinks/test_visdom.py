"""A real Visdom server on loopback: what arrives, and what becomes of the run when the server is bad."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import io
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from treadle.errors import UsageError
from treadle.images.display import to_uint8
from treadle.runs.metrics import series
from treadle.sinks.base import Sink
from treadle.sinks.sending import send_run
from treadle.sinks.services import visdom
from treadle.sinks.services.service import Opening
from treadle.sinks.services.visdom import DEFAULT_URL, Server, VisdomService, parse_url
from treadle.sinks.visdom import Visdom

START = """
import sys
sys.modules["torch"] = None  # Visdom's client would import it, if it can
from visdom.server.run_server import start_server
start_server(port=int(sys.argv[1]), bind_local=True, base_url="", env_path=sys.argv[2])
"""


class RealServer:
    """A Visdom server in a process of its own, and what its API says it shows."""

    def __init__(self, directory: Path) -> None:
        if importlib.util.find_spec("visdom") is None:
            pytest.skip("the package visdom is not installed: make env")
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", START, str(self.port), str(self.directory)]
        log = self.directory.with_suffix(".log")  # a pipe that nobody reads would stop it
        with open(log, "wb") as said:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise AssertionError(f"Visdom does not start: {log.read_text()}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def windows(self, environment: str) -> dict[str, Any]:
        """The windows of an environment, by their ids; empty where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/win_data", json.dumps({"eid": environment, "win": None}))
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return json.loads(text) if response.status == 200 else {}

    def lines(self, environment: str, window: str) -> dict[str, list[list[float]]]:
        """Steps and values of the lines of a window."""
        data = self.windows(environment).get(window, {"content": {"data": []}})["content"]["data"]
        return {line["name"]: [line["x"], line["y"]] for line in data}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """One server for all tests that leave it running."""
    server = RealServer(tmp_path_factory.mktemp("visdom"))
    yield server
    server.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RealServer]:
    """A server that a test may kill."""
    server = RealServer(tmp_path / "visdom")
    yield server
    server.stop()


class BadServer:
    """Accepts connections and says nothing, or what it is told to; counts them."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.accepted: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(connection)
            if self.answer is not None:
                with connection, connection.makefile("rb") as request:
                    head = http.client.parse_headers(request) if request.readline() else {}
                    request.read(int(head.get("Content-Length", 0)))
                    connection.sendall(self.answer)

    def close(self) -> None:
        if self.thread.is_alive():
            self.listener.shutdown(socket.SHUT_RDWR)
            self.thread.join(5)
        self.listener.close()
        for connection in self.accepted:
            connection.close()


@pytest.fixture
def bad() -> Iterator[Callable[[bytes | None], BadServer]]:
    servers: list[BadServer] = []

    def make(answer: bytes | None) -> BadServer:
        servers.append(BadServer(answer))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


class Direct(Sink):
    """Tells a service in this process what a run logs, so that a test may hold its sender."""

    def __init__(self, url: str, environment: str | None = None) -> None:
        self.options = {"url": url, "environment": environment}
        self.troubles: list[str] = []
        self.lost: dict[str, int] = {}

    def open(self, trainer: Any) -> None:
        name = type(trainer).__name__
        self.service = VisdomService()
        self.service.open(Opening(name, "0" * 16, name, name, None, trainer.progress.step, False, options=self.options))

    def close(self) -> None:
        self.tell(lambda: self.service.close("finished"))
        self.lost = dict(self.service.lost())

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        self.tell(lambda: self.service.scalars(step, 0, split, values, 0.0))

    def image(self, step: int, name: str, picture: Any) -> None:
        self.tell(lambda: self.service.picture(step, name, to_uint8(picture).copy()))

    def text(self, step: int, name: str, text: str) -> None:
        self.tell(lambda: self.service.text(step, name, text))

    def cut(self, step: int) -> None:
        self.tell(lambda: self.service.cut(step))

    def tell(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            self.troubles.append(str(error))
        trouble = self.service.trouble()
        if trouble:
            self.troubles.append(trouble)


class Pauses:
    """The senders' pauses: how long they were to be. They are over at once, or when they may be."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.held = self.resting = self.quick = False
        self.changed = threading.Condition()

    def event(self) -> threading.Event:
        """For a sender to wait on."""
        pauses = self

        class Pause(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                assert timeout is not None
                with pauses.changed:
                    pauses.asked.append(timeout)
                    pauses.resting = True
                    while not self.is_set():
                        pauses.changed.wait(0 if pauses.quick else 0.01)
                        if not pauses.held:
                            break
                    pauses.resting = False
                return self.is_set()

        return Pause()

    def hold(self) -> None:
        """Let the sender rest in its next pause, and wait until it does."""
        with self.changed:
            self.held = True

        def resting() -> bool:
            with self.changed:
                return self.resting

        until(resting)

    def end(self) -> None:
        """Let it go on."""
        with self.changed:
            self.held = False


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Rounds follow one another at once, and a busy machine is waited for."""
    made = Pauses()
    monkeypatch.setattr(visdom, "threading", SimpleNamespace(Event=made.event, Thread=threading.Thread))
    for name in ("ANSWER_SECONDS", "CLOSING_SECONDS"):
        monkeypatch.setattr(visdom, name, 60.0)
    return made


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def sender() -> threading.Thread:
    """The thread that sends."""
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "treadle visdom")
    return thread


def noted(trainer: Any, event: str) -> list[Any]:
    return [entry for entry in trainer.journal if entry["event"] == event]


def test_all_that_is_logged_arrives(line: Callable[..., Any], shared: RealServer, tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[Visdom(shared.url)])
    trainer.iterate()
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    trainer.log_image("probe", picture)
    trainer.log_text("note", "hello <b>there</b>")
    trainer.train()
    windows = shared.windows("line_v001")
    assert set(windows) == {"picture probe", "text note", "plot losses", "plot psnr", "plot learning rates"}
    for name, split, place in (
        ("loss", "train", ("plot losses", "loss")),
        ("loss", "validation", ("plot losses", "loss (validation)")),
        ("psnr", "train", ("plot psnr", "train")),
        ("psnr", "epoch", ("plot psnr", "epoch")),
        ("lr", "train", ("plot learning rates", "lr")),
    ):
        steps, values = series(trainer.run.path, name, split)
        assert shared.lines("line_v001", place[0])[place[1]] == [steps.tolist(), values.tolist()] and len(steps) >= 3
    source = windows["picture probe"]["content"]["src"].partition(",")[2]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))), picture)
    assert windows["picture probe"]["title"] == "probe, step 1"
    assert "hello &lt;b&gt;there&lt;/b&gt;" in windows["text note"]["content"]
    saved = json.loads((shared.directory / "line_v001.json").read_text())
    assert saved["jsons"] == windows  # the server still has it when it begins anew
    assert not noted(trainer, "log failed") and not noted(trainer, "not sent")


def test_runs_have_environments_of_their_own(line: Callable[..., Any], shared: RealServer, tmp_path: Path) -> None:
    for epochs in (1, 2):
        line(run_dir=tmp_path / "two", hooks=[Visdom(shared.url)], max_epochs=epochs).train()
    line(hooks=[Visdom(shared.url)], max_epochs=3).train()
    line(hooks=[Visdom(shared.url, environment="chosen")], max_epochs=4).train()
    ends = {
        name: shared.lines(name, "plot losses")["loss"][0][-1] for name in ("two_v001", "two_v002", "Line", "chosen")
    }
    assert ends == {"two_v001": 4, "two_v002": 8, "Line": 12, "chosen": 16}


def test_what_an_older_run_of_the_same_name_left_there_goes(
    line: Callable[..., Any], shared: RealServer, pauses: Pauses
) -> None:
    old = line(hooks=[Direct(shared.url, environment="same")])
    old.iterate()
    old.log_text("note", "of the old run")
    old.close()
    assert "text note" in shared.windows("same")
    line(hooks=[Direct(shared.url, environment="same")]).train()
    assert set(shared.windows("same")) == {"plot losses", "plot psnr", "plot learning rates"}


@pytest.mark.parametrize("same_server", [True, False])
def test_a_resumed_run_goes_on_with_its_windows(
    line: Callable[..., Any], shared: RealServer, own: RealServer, tmp_path: Path, same_server: bool
) -> None:
    name = f"resumed-{same_server}"
    first = line(run_dir=tmp_path / name, hooks=[Visdom(shared.url)], save_every="3 steps")
    for _ in range(8):
        first.iterate()
    first.log_text("note", "hello")
    first.close()
    server = shared if same_server else own
    assert shared.lines(f"{name}_v001", "plot losses")["loss"][0] == [2, 4, 6, 8]
    again = line(run_dir=first.run.path, resume=True, hooks=[Visdom(server.url)], save_every="3 steps")
    assert again.progress.step == 6
    again.iterate()
    again.log_image("probe", torch.zeros(4, 4))  # the first thing that it shows
    until(lambda: "picture probe" in server.windows(f"{name}_v001"))
    assert server.lines(f"{name}_v001", "plot losses")["loss"][0] == [2, 4, 6]
    again.train()
    steps, values = series(first.run.path, "loss")
    assert server.lines(f"{name}_v001", "plot losses")["loss"] == [steps.tolist(), values.tolist()]
    assert steps.tolist() == [2, 4, 6, 8, 10, 12]
    assert ("text note" in server.windows(f"{name}_v001")) == same_server


def test_a_rewound_run_takes_its_points_back(line: Callable[..., Any], shared: RealServer) -> None:
    trainer = line(hooks=[Visdom(shared.url, environment="rewound")], snapshot_every="2 steps", max_epochs=10)
    for _ in range(9):
        trainer.iterate()
    until(lambda: shared.lines("rewound", "plot losses").get("loss", [[]])[0] == [2, 4, 6, 8])
    trainer.rewind(4)
    until(lambda: shared.lines("rewound", "plot losses")["loss"][0] == [2, 4])
    for _ in range(2):
        trainer.iterate()
    trainer.close()
    assert shared.lines("rewound", "plot losses")["loss"][0] == [2, 4, 6]
    assert shared.lines("rewound", "plot losses")["loss (validation)"][0] == [4]


def test_a_test_after_the_run_is_added(line: Callable[..., Any], shared: RealServer) -> None:
    trainer = line(hooks=[Visdom(shared.url, environment="tested")])
    trainer.train()
    trainer.test(trainer.validation_feed)
    lines = shared.lines("tested", "plot losses")
    assert lines["loss"][0] == [2, 4, 6, 8, 10, 12] and lines["loss (test)"][0] == [12]


def test_a_server_that_begins_anew_gets_everything(line: Callable[..., Any], own: RealServer, pauses: Pauses) -> None:
    sink = Direct(own.url)
    trainer = line(hooks=[sink])
    for _ in range(4):
        trainer.iterate()
    trainer.log_text("note", "hello")
    until(lambda: "text note" in own.windows("Line") and own.lines("Line", "plot losses")["loss"][0] == [2, 4])
    own.stop()
    trainer.log_text("another", "hello")
    until(lambda: 2.0 in pauses.asked)
    trainer.iterate(), trainer.iterate()  # it is told with the next log after it was seen
    assert sink.troubles == ["Connection refused"]
    own.start()
    until(lambda: "text note" in own.windows("Line"))
    trainer.train()
    assert own.lines("Line", "plot losses")["loss"][0] == [2, 4, 6, 8, 10, 12]
    assert sink.troubles == ["Connection refused"], "it is told once"
    assert not sink.lost


def test_a_server_that_began_anew_between_two_rounds_gets_everything(
    line: Callable[..., Any], own: RealServer, pauses: Pauses
) -> None:
    sink = Direct(own.url)
    trainer = line(hooks=[sink])
    for _ in range(4):
        trainer.iterate()
    until(lambda: own.lines("Line", "plot losses").get("loss (validation)") is not None)
    pauses.hold()  # nothing is under way
    own.stop()
    own.start()
    pauses.end()
    trainer.train()
    assert own.lines("Line", "plot losses")["loss"][0] == [2, 4, 6, 8, 10, 12]
    assert not sink.troubles and not sink.lost


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
ANOTHER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (None, "no answer in 0.4 s"),
        (b"", "Remote end closed connection without response"),
        (b"SSH-2.0-OpenSSH\r\n", "SSH-2.0-OpenSSH"),
        (NOT_FOUND, "it answers 404 Not Found"),
        (ANOTHER, "no Visdom server: it answers 'hello'"),
        ("absent", "Connection refused"),
    ],
)
def test_a_bad_server_changes_nothing_about_the_run(
    line: Callable[..., Any],
    bad: Callable[[bytes | None], BadServer],
    pauses: Pauses,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    trouble: str,
) -> None:
    bare = line()
    bare.train()
    if answer is None:
        monkeypatch.setattr(visdom, "ANSWER_SECONDS", 0.4)
    server = bad(None if answer == "absent" else answer)
    if answer == "absent":
        server.close()
    sink = Direct(server.url)
    trainer = line(hooks=[sink])
    for _ in range(11):
        trainer.iterate()
        trainer.log_image("probe", torch.zeros(4, 4))

    def told() -> list[Any]:
        trainer.log_image("probe", torch.zeros(4, 4))
        return sink.troubles

    until(told)
    assert trainer.train().status == "finished"
    assert trainer.digest() == bare.digest()
    assert sink.troubles == [trouble]
    assert sink.lost["windows not up to date"] == 4 and sink.lost["pictures replaced before they were sent"] >= 10


def test_closing_is_bounded_and_no_thread_stays(
    line: Callable[..., Any], bad: Callable[[bytes | None], BadServer], pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visdom, "ANSWER_SECONDS", 600.0)
    monkeypatch.setattr(visdom, "CLOSING_SECONDS", 0.3)
    server = bad(None)
    sink = Direct(server.url)
    trainer = line(hooks=[sink])
    trainer.iterate()
    until(lambda: server.accepted)
    thread = sender()
    trainer.train()
    assert thread.is_alive() and thread.daemon  # given up: it holds nobody, and sends no more
    assert sink.lost == {"windows not up to date": 3}
    server.accepted[0].close()  # what it waits for fails at last
    thread.join(60)
    assert not thread.is_alive() and len(server.accepted) == 1


def test_a_dead_server_is_asked_once_a_pause_however_many_steps_are_taken(
    line: Callable[..., Any], bad: Callable[[bytes | None], BadServer], pauses: Pauses
) -> None:
    server = bad(b"")
    trainer = line(hooks=[Direct(server.url)], max_epochs=None, max_steps=10**6, validation_data=None)
    trainer.iterate(), trainer.iterate()
    until(lambda: server.accepted)
    pauses.hold()
    asked = len(server.accepted)
    for _ in range(100):
        trainer.iterate()
    assert len(server.accepted) == asked
    pauses.end()
    until(lambda: len(server.accepted) > asked + 3)
    trainer.close()
    assert len(server.accepted) <= len(pauses.asked)


def test_retries_become_rarer_and_go_on_for_ever(
    line: Callable[..., Any], bad: Callable[[bytes | None], BadServer], pauses: Pauses
) -> None:
    server = bad(None)
    server.close()
    pauses.held = True
    trainer = line(hooks=[Direct(server.url)])
    trainer.iterate(), trainer.iterate()
    pauses.quick = True
    pauses.end()
    until(lambda: len(pauses.asked) >= 1100)
    trainer.close()
    assert pauses.asked[:8] == [0, 1, 2, 4, 8, 16, 30, 30] and set(pauses.asked[8:]) == {30}


@pytest.mark.parametrize(("seconds", "pause"), [(0.1, 1.0), (2.0, 8.0), (9.0, 30.0)])
def test_a_slow_server_is_asked_less_often(
    line: Callable[..., Any],
    shared: RealServer,
    pauses: Pauses,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    pause: float,
) -> None:
    """A round that takes 2 s is followed by 8 s of rest: sending is a fifth of the time."""
    clock = itertools.count(0, seconds)
    monkeypatch.setattr(visdom, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    trainer = line(hooks=[Direct(shared.url, environment="slow")])
    trainer.iterate()
    until(lambda: len(pauses.asked) >= 3)
    trainer.close()
    assert pauses.asked[1:3] == pytest.approx([pause, pause])


def test_a_server_that_is_away_is_said_and_what_was_never_shown_is_counted(
    line: Callable[..., Any], bad: Callable[[bytes | None], BadServer], capfd: pytest.CaptureFixture[str]
) -> None:
    bare = line()
    bare.train()
    server = bad(None)
    server.close()
    trainer = line(hooks=[Visdom(server.url)])
    for _ in range(11):
        trainer.iterate()
        trainer.log_image("probe", torch.zeros(4, 4))

    def told() -> list[Any]:
        trainer.log_image("probe", torch.zeros(4, 4))
        return noted(trainer, "log failed")

    until(told)
    assert trainer.train().status == "finished" and trainer.digest() == bare.digest()
    (note,) = noted(trainer, "log failed")
    assert note["service"] == "visdom" and note["error"] == "Connection refused"
    (counts,) = (entry["counts"] for entry in noted(trainer, "not sent"))
    assert counts["windows not up to date"] == 4 and counts["pictures replaced before they were sent"] >= 10
    said = capfd.readouterr().err
    assert f"Visdom at {server.url}: Connection refused; the run goes on" in said
    assert f"Visdom at {server.url}: not shown: 4 windows not up to date" in said and said.count("Visdom at") == 2


def test_a_finished_run_is_sent_again_to_a_server_that_has_forgotten_it(
    line: Callable[..., Any], shared: RealServer, own: RealServer, tmp_path: Path
) -> None:
    trainer = line(run_dir=tmp_path / "sent")
    trainer.iterate()
    trainer.log_image("probe", torch.zeros(4, 4))
    trainer.train()
    for server in (shared, own, own):
        send_run(Visdom(server.url), trainer.run.path)
        assert server.lines("sent_v001", "plot losses")["loss"][0] == [2, 4, 6, 8, 10, 12]
        assert "picture probe" in server.windows("sent_v001")


def test_a_mute_server_is_waited_for_no_longer_than_a_run_waits(
    line: Callable[..., Any], bad: Callable[[bytes | None], BadServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "1")
    server = bad(None)
    trainer = line(hooks=[Visdom(server.url)])
    trainer.iterate(), trainer.iterate()
    until(lambda: server.accepted)
    assert trainer.train().status == "finished"
    assert noted(trainer, "not sent")
    connection = server.accepted[0]
    connection.settimeout(60)
    while connection.recv(65536):  # what it was sent, and then its end: the process is gone
        pass


def test_a_process_that_dies_is_replaced_and_nothing_is_missing(
    line: Callable[..., Any], shared: RealServer, tmp_path: Path
) -> None:
    """A run on disk has it all in its files; of one in memory the server shows what it was sent."""

    def processes() -> list[psutil.Process]:
        found = []
        for process in psutil.Process().children():
            with suppress(psutil.Error):  # it has just ended
                found += [process] if "treadle.sinks.services.carrier" in process.cmdline() else []
        return found

    for directory in (tmp_path / "dies", None):
        trainer = line(run_dir=directory, hooks=[Visdom(shared.url, environment="dies")])
        for _ in range(5):
            trainer.iterate()
        until(lambda: shared.lines("dies", "plot losses").get("loss", [[]])[0] == [2, 4])
        (child,) = processes()
        child.kill()
        trainer.iterate()
        until(lambda dead=child: [process for process in processes() if process != dead])
        trainer.train()
        lines = shared.lines("dies", "plot losses")
        assert lines["loss"][0] == [2, 4, 6, 8, 10, 12] and lines["loss (validation)"][0] == [4, 8, 12]


def test_a_logged_picture_is_a_copy(line: Callable[..., Any], shared: RealServer) -> None:
    trainer = line(hooks=[Visdom(shared.url, environment="copy")])
    trainer.iterate()
    picture = torch.full((4, 4), 7, dtype=torch.uint8)
    trainer.log_image("probe", picture)
    picture.fill_(9)
    trainer.close()
    source = shared.windows("copy")["picture probe"]["content"]["src"].partition(",")[2]
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))).max() == 7


@pytest.mark.parametrize(
    ("url", "server"),
    [
        (DEFAULT_URL, Server(False, "localhost", 8097, "")),
        ("gpu-box", Server(False, "gpu-box", 8097, "")),
        ("10.0.0.7:80/", Server(False, "10.0.0.7", 80, "")),
        ("https://example.org/visdom/", Server(True, "example.org", 443, "/visdom")),
        ("http://[::1]:9000", Server(False, "::1", 9000, "")),
    ],
)
def test_addresses(url: str, server: Server) -> None:
    assert parse_url(url) == server and parse_url(server.url) == server


@pytest.mark.parametrize(
    "url",
    ["", "http://", "ftp://host", "http://host:port", "http://host:99999", "a b", "http://me:secret@host", "h/?x=1"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"expected one such as http://localhost:8097"):
        Visdom(url)
