"""`treadle train --studio`: a browser drives the run, and the process stays for it after the end."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from treadle.studio.client import StudioClient
from treadle.studio.protocol import Extend, Failed, Rewind, Stop


class Driving:
    """Somebody at the studio of a command that runs in this process: does `drive` with a client, in a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self._more = threading.Condition()
        monkeypatch.setattr("treadle.studio.hook.say", self._take)
        monkeypatch.setattr("treadle.cli.studio_flags.say", self._take)
        self._error: BaseException | None = None

    def _take(self, text: str) -> None:
        with self._more:
            self.said.append(text)
            self._more.notify_all()

    def saying(self, pattern: str) -> re.Match[str]:
        """Wait until the command has said this."""
        with self._more:
            assert self._more.wait_for(lambda: re.search(pattern, "\n".join(self.said)), 60), self.said
        found = re.search(pattern, "\n".join(self.said))
        assert found
        return found

    @contextmanager
    def __call__(self, drive: Callable[[StudioClient], None]) -> Iterator[None]:
        """Within the block a command runs, and `drive` drives it; what fails there fails here."""

        def work() -> None:
            try:
                with StudioClient(self.saying(r"studio: (http\S+)")[1], timeout=60) as client:
                    drive(client)
            except BaseException as error:
                self._error = error
                os.kill(os.getpid(), signal.SIGINT)  # the command would wait for ever

        thread = threading.Thread(target=work)
        thread.start()
        yield
        thread.join(60)
        if self._error is not None:
            raise self._error


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What runs the tests in the background may have Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driving:
    return Driving(monkeypatch)


RUN = Path("runs/line/v001")


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "journal.jsonl").read_text().splitlines()]


def test_a_run_is_driven_to_its_end_and_beyond_until_the_pages_stop(treadle: Any, line: None, driven: Driving) -> None:
    def drive(client: StudioClient) -> None:
        assert driven.saying(r"ssh -L (\d+):127.0.0.1:(\d+) \S+@")[1] == str(client.address.port)
        assert client.wait_until(lambda state: state.stage == "paused").step == 0  # not a step before one says so
        client.advance(3)
        assert client.wait_until(lambda state: state.step == 3).stage == "paused"
        client.play()
        driven.saying("open until 'stop' in the page or Ctrl-C here")
        client.request(Rewind(id=0, step=18, keep=False))
        driven.saying(r"(?s)open until.*open until")
        client.request(Extend(id=0, max_steps=25))
        client.wait_until(lambda state: state.step == 25 and state.stage == "finished")
        client.request(Stop(id=0))

    with driven(drive):
        assert treadle("train", "line", "--studio-paused", "--studio-port", "0") == 0
    assert "finished: step 25" in treadle.out
    wanted = ("finish", "rewind", "extend")
    assert [each for each in events(RUN) if each in wanted] == ["finish", "rewind", "finish", "extend", "finish"]


def test_ctrl_c_while_paused_stops_with_a_checkpoint_that_is_resumed(treadle: Any, line: None, driven: Driving) -> None:
    def drive(client: StudioClient) -> None:
        client.advance(2)
        os.kill(os.getpid(), signal.SIGINT)

    with driven(drive):
        assert treadle("train", "line", "--studio-paused") == 130
    assert json.loads((RUN / "checkpoints/latest.json").read_text())["step"] == 2
    driven.said.clear()

    def end(client: StudioClient) -> None:
        client.wait_until(lambda state: state.stage == "paused")
        os.kill(os.getpid(), signal.SIGTERM)

    with driven(end):
        assert treadle("resume", "runs/line", "--studio-paused") == 143, treadle.err
    driven.said.clear()
    with driven(lambda client: client.play()):
        assert treadle("resume", "runs/line", "--studio-paused", "--studio-exit") == 0
    assert json.loads((RUN / "summary.json").read_text())["step"] == 20
    assert treadle("resume", "runs/line", "--studio") == 0 and "treadle studio runs/line/v001" in treadle.out


def test_a_failure_is_shown_until_ctrl_c(treadle: Any, line: None, driven: Driving) -> None:
    def drive(client: StudioClient) -> None:
        failed = client.wait_for(Failed)
        assert "Traceback" in failed.traceback and failed.error == "ZeroDivisionError: as asked"
        driven.saying("open until")
        os.kill(os.getpid(), signal.SIGINT)

    with driven(drive):
        assert treadle("train", "line", "--studio", "--fail") == 1
    assert "failed: ZeroDivisionError: as asked" in treadle.err and "Traceback" not in treadle.err


def test_with_studio_exit_it_leaves_at_the_end(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--studio-exit", "--studio-socket", "it.socket") == 0
    assert re.search(r"ssh -L 8765:\S+/it\.socket ", treadle.err) and "open until" not in treadle.err
    assert not Path("it.socket").exists()


def test_bad_usage_is_one_line_before_anything_is_made(treadle: Any, line: None, monkeypatch: Any) -> None:
    assert treadle("train", "line", "--studio-socket", "x", "--studio-port", "1") == 2
    assert "not at both" in treadle.err
    assert treadle("train", "line", "--studio-root", "x/") == 2 and "expected a path such as" in treadle.err
    assert treadle("train", "line", "--try", "--studio") == 2 and "choose one" in treadle.err
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert treadle("train", "line", "--studio") == 2
    assert treadle.err.strip() == "treadle: the studio needs starlette: pip install 'treadle[studio]'"
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", [("train",), ("resume",)])
def test_the_help_says_it(treadle: Any, line: None, command: tuple[str, ...]) -> None:
    assert treadle(*command, "--help") == 0
    for option in ("--studio", "--studio-paused", "--studio-exit", "--studio-port", "--studio-socket"):
        assert option in treadle.out
