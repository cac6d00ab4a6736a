"""The interpreter that is ready: programs start, read, write and end there as they would in any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm.python import python

SAYS = """
import os, sys, threading, atexit
import beside
atexit.register(print, "in the end")
threading.Thread(target=lambda: (threading.main_thread().join(), print("a thread"))).start()
print(__name__, os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), os.environ.get("SAID"), sys.stdin.read())
print("an error", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("how", ["file", "module", "package", "text"])
def test_a_program_is_what_it_is_in_any_other(tmp_path: Path, how: str) -> None:
    (tmp_path / "beside.py").touch()
    (tmp_path / "program.py").write_text(SAYS)
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__main__.py").write_text(SAYS)
    words = {"file": ["program.py"], "module": ["-m", "program"], "package": ["-m", "pack"], "text": ["-c", SAYS]}[how]
    found = [
        subprocess.run([start, *words, "a", "-b"], cwd=tmp_path, input="read", capture_output=True, text=True,
                       env=os.environ | {"SAID": "this"})
        for start in (sys.executable, python())
    ]  # fmt: skip
    assert found[0].returncode == 3 and found[0].stdout.endswith("a thread\nin the end\n")
    assert [(done.returncode, done.stdout, done.stderr) for done in found[:1]] == [
        (done.returncode, done.stdout, done.stderr) for done in found[1:]
    ]


def test_an_error_is_said_and_torch_is_there_already() -> None:
    code = "import sys; print('torch._dynamo' in sys.modules); raise ValueError('so')"
    done = subprocess.run([python(), "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "True\n")
    assert done.stderr == 'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nValueError: so\n'


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_come_through_and_end_both(number: signal.Signals) -> None:
    """The program's end of the pipe is open as long as it lives."""
    code = "import time; print('there', flush=True); time.sleep(1000)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([python(), "-c", code], text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "there\n"
        process.send_signal(number)
        assert process.stdout.read() == ""
    assert process.returncode == -number


def test_a_program_that_is_killed_is_seen_to_be() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([python(), "-c", code]).returncode == -signal.SIGKILL


def test_what_a_program_starts_is_as_quick_where_that_is_asked_for() -> None:
    code = "import sys; print('torch' in sys.modules)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    said = [
        subprocess.run([python(everything=each), "-c", outer], capture_output=True, text=True, check=True).stdout
        for each in (False, True)
    ]
    assert said == ["False\n", "True\n"]


@pytest.mark.parametrize(("unbuffered", "code"), [("", 120), ("1", 1)])
def test_what_cannot_be_written_is_an_error_as_in_any_other(unbuffered: str, code: int) -> None:
    variables = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        codes = [
            subprocess.run(
                [start, "-c", "print('lost')"],
                stdout=full,
                stderr=full,
                env=variables,
            ).returncode
            for start in (sys.executable, python())
        ]
    assert codes == [code, code]
