"""Where processes meet: what a launcher's variables may say, and what is said where nobody is met."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from treadle import RunError, UsageError
from treadle.cli import several
from treadle.parallel import this_world
from treadle.parallel.meeting import Meeting, knock, meeting

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def say(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    for name, value in zip(NAMES, values, strict=True):
        monkeypatch.setenv(name, value)


def test_a_launchers_variables_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "1", "4", "node-a", "29500")
    assert meeting() == Meeting(1, 4, "node-a", 29500) and meeting().at == "node-a:29500"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("", "2", "a", "1"), "WORLD_SIZE says that 2 processes train together, but RANK is not set"),
        (("0", "2", "a", ""), "but MASTER_PORT is not set: start them with torchrun"),
        (("0", "two", "a", "1"), "WORLD_SIZE is 'two': expected a whole number of at least 1"),
        (("2", "2", "a", "1"), "RANK is '2': expected a whole number of 0 to 1"),
        (("-1", "2", "a", "1"), "RANK is '-1': expected a whole number of 0 to 1"),
        (("0", "2", "a", "65536"), "MASTER_PORT is '65536': expected a whole number of 1 to 65535"),
    ],
)
def test_variables_that_cannot_be_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, values: tuple[str, ...], words: str
) -> None:
    say(monkeypatch, *values)
    with pytest.raises(UsageError, match=words):
        this_world()


def test_a_process_without_a_place_among_the_others_says_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    for rank in ("0", "1", "2", "x"):
        say(monkeypatch, rank, "2", "a", "1")
        told[rank] = several.is_main()
    assert told == {"0": True, "1": False, "2": True, "x": True}


def test_a_port_that_another_program_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "0", "2", "localhost", "1")
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RunError, match=f"port {port} of this machine, another program has it: give all of them"):
            knock(Meeting(0, 2, "localhost", port), 1)
    knock(Meeting(0, 2, "localhost", port), 1)


def test_whom_nobody_listens_to_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "1", "2", "localhost", "1")
    with socket.socket() as silent:
        silent.bind(("localhost", 0))
        port = silent.getsockname()[1]
        with pytest.raises(RunError, match=rf"process 1 cannot reach process 0 at localhost:{port} within 0.2 s \("):
            knock(Meeting(1, 2, "localhost", port), 0.2)
        with pytest.raises(RunError, match=r"at no\.such\.invalid:9 within 0\.1 s \(.*is MASTER_ADDR its machine"):
            knock(Meeting(1, 2, "no.such.invalid", 9), 0.1)


def test_one_that_comes_first_waits_for_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "1", "2", "localhost", "1")
    with socket.socket() as late:
        late.bind(("localhost", 0))

        def listen() -> None:
            time.sleep(0.2)
            late.listen()

        thread = threading.Thread(target=listen)
        thread.start()
        knock(Meeting(1, 2, "localhost", late.getsockname()[1]), 60)
        thread.join()


def test_torchrun_listens_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "1", "2", "no.such.invalid", "9")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    knock(Meeting(1, 2, "no.such.invalid", 9), 0.1)
