"""Whoever reads what a command prints may go away, or have no room for it: the command does its work all the same."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.warm.python import python

RUN = Path("runs/line/v001")
LINES = ("--log-every", "1 step", "--max-steps", "60", "--pause", "0.01")


@pytest.fixture
def environment(site: Path) -> dict[str, str]:
    """That of a process that finds the pack; its trainer prints, too."""
    pack = site / "line_pack" / "__init__.py"
    said = 'print("step", self.progress.step, flush=True)\n        loss = self.loss(batch)'
    pack.write_text(pack.read_text().replace("loss = self.loss(batch)", said, 1))
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Not unbuffered: what a stream still holds at the end is part of the matter.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return inherited | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TERM": "xterm"}


def command(*arguments: str, start: str = sys.executable) -> list[str]:
    return [start, "-m", "treadle.cli", *arguments]


def check_finished(directory: Path, step: int = 60) -> None:
    summary = json.loads((directory / RUN / "summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("finished", step)
    journal = (directory / RUN / "journal.jsonl").read_text()
    assert "observer failed" not in journal, "nobody has noticed"
    assert (directory / RUN / "report" / "slope.txt").exists()


def start(
    tmp_path: Path, environment: dict[str, str], start: str = sys.executable, **streams: Any
) -> subprocess.Popen[bytes]:
    words = command("train", "line", *LINES, start=start)
    return subprocess.Popen(words, cwd=tmp_path, env=environment, **streams)


def test_a_pipe_that_is_closed_after_a_line(tmp_path: Path, environment: dict[str, str]) -> None:
    """`treadle train ... 2>&1 | head -1`."""
    with start(tmp_path, environment, python(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
    check_finished(tmp_path)


def test_a_pipe_for_results_that_is_closed(tmp_path: Path, environment: dict[str, str]) -> None:
    """The results go nowhere, and not even the interpreter complains of that at its end."""
    with start(tmp_path, environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.count(b"\n") == said.count(b"step ") > 60 and b"BrokenPipe" not in said
    check_finished(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full(tmp_path: Path, environment: dict[str, str]) -> None:
    with open("/dev/full", "wb") as full, start(tmp_path, environment, python(), stdout=full, stderr=full) as process:
        assert process.wait(timeout=60) == 0
    check_finished(tmp_path)


def test_a_process_without_standard_streams(tmp_path: Path, environment: dict[str, str]) -> None:
    line = 'exec "$@" >&- 2>&-'
    process = subprocess.run(
        ["bash", "-c", line, "-", *command("train", "line", *LINES)], cwd=tmp_path, env=environment, timeout=60
    )
    assert process.returncode == 0
    check_finished(tmp_path)


@pytest.mark.parametrize("controls", [True, False])
def test_a_terminal_that_vanishes(tmp_path: Path, environment: dict[str, str], controls: bool) -> None:
    """The window is closed, the connection to the machine is lost; where it was the controlling one, with SIGHUP."""
    master, slave = os.openpty()

    def control() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with start(
        *(tmp_path, environment), stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True, preexec_fn=control if controls else None,
    ) as process:  # fmt: skip
        os.close(slave)
        seen = b""
        while b"step 5" not in seen:
            seen += os.read(master, 4096)
        os.close(master)
        assert process.wait(timeout=60) == 0
    check_finished(tmp_path)


def test_a_run_that_fails_fails_all_the_same(tmp_path: Path, environment: dict[str, str]) -> None:
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    arguments = command("train", "line", "--fail", start=python())
    with subprocess.Popen(arguments, cwd=tmp_path, env=environment, **streams) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 1
    assert json.loads((tmp_path / RUN / "summary.json").read_text())["status"] == "failed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_console_in_a_program_of_ones_own(tmp_path: Path, environment: dict[str, str]) -> None:
    """Without the command line around it, which looks after the standard streams."""
    program = "from line_pack import *; from treadle.sinks.console import Console\n" + (
        "config = LineConfig(max_steps=20, log_every='1 step')\n"
        "LineTrainer.step = lambda self, batch: self.minimize(self.loss(batch)) and {'loss': 1.0}\n"
        "trainer = LineTrainer(config, **LineTrainer.load_data(config, None), hooks=[Console()], run_dir='runs/line')\n"
        "assert trainer.train().status == 'finished'"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([python(), "-c", program], cwd=tmp_path, env=environment, stderr=full, timeout=60)
    assert done.returncode == 0
    assert "observer failed" not in (tmp_path / RUN / "journal.jsonl").read_text()
