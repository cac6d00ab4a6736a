"""Streams that are gone take what is said to people with them, and nothing else."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from treadle.terminal import outliving_the_terminal, say, steady, steady_streams


def pipe() -> tuple[int, TextIO]:
    ours, theirs = os.pipe()
    return ours, os.fdopen(theirs, "w")


def test_what_is_said_arrives_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    ours, stream = pipe()
    say("one", stream)
    assert os.read(ours, 100) == b"one\n"
    say("two")
    assert capsys.readouterr() == ("", "two\n")


def test_a_reader_that_has_gone_is_not_noticed() -> None:
    ours, stream = pipe()
    os.close(ours)
    with pytest.raises(BrokenPipeError):
        print("unsteady", file=stream, flush=True)
    for _ in range(3):
        say("steady", stream)
    quiet = steady(stream)
    assert quiet is not None and steady(quiet) is quiet
    assert quiet.write("x" * 100_000) == 100_000 and quiet.fileno() == stream.fileno() and not quiet.isatty()
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what it holds can go


def test_a_closed_stream_is_not_noticed(tmp_path: Path) -> None:
    stream = (tmp_path / "log").open("w")
    stream.close()
    say("nobody hears", stream)
    quiet = steady(stream)
    assert quiet is not None and not quiet.isatty()
    quiet.flush()


def test_a_disk_that_has_room_again_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk(io.StringIO):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    disk = Disk()
    say("lost", disk)
    disk.full = False
    say("kept", disk)
    assert disk.getvalue() == "kept\n"


def test_what_an_encoding_cannot_say_is_escaped() -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii")
    say("∞ größer", stream)
    assert buffer.getvalue() == b"\\u221e gr\\xf6\\xdfer\n"


def test_there_may_be_no_stream_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody hears")
    with steady_streams():
        print("results")
    assert capsys.readouterr().out == "results\n"
    assert sys.stderr is None


def test_the_standard_streams_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), steady_streams():
        assert sys.stdout is not before[0] and sys.stderr is not before[1]
        print(1 / 0)
    assert (sys.stdout, sys.stderr) == before


def test_no_file_gets_the_descriptor_of_a_stream_that_is_not_there(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.close(1); os.close(2); from treadle.terminal import steady_streams\n"
        "with steady_streams(): sys.exit(os.open('/dev/null', os.O_RDONLY) <= 2)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_hang_up_ends_nothing_within() -> None:
    code = (
        "import os, signal; from treadle.terminal import outliving_the_terminal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # nohup, under which tests may run, has it ignored
        "with outliving_the_terminal(): os.kill(os.getpid(), signal.SIGHUP); print('within', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGHUP); print('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("within\n", -signal.SIGHUP)


def test_a_programs_own_handler_of_hang_ups_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: heard.append(number))
    try:
        with outliving_the_terminal():
            os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)
