"""The processes that train branches: what they say, how they end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from treadle.parallel.launcher import without_launcher
from treadle.studio.client import StudioClient
from treadle.studio.driving.remote import RemoteRun
from treadle.studio.driving.words import GO_ON

CHILD = (sys.executable, "-m", "treadle.studio.child")
"""The command that a branch is started by: the same for all, for what it is to do comes on its standard input."""
LAST_LINES = 12
"""Of what a child has said on standard error, that are told when it fails."""
ENDING_SECONDS = 20.0
"""That a child has to finish its step and save, before it is killed."""
LAST_WORDS = 5.0
"""Seconds to wait for what a process has said that has ended: one of its own children may hold the other end."""
TELLING_SECONDS = 0.5


@dataclass(eq=False)
class Child:
    """A process that trains a branch.

    Attributes:
        step: after which it left its parent; settings: those that are others.
        run: its directory, once it is there.
        stage: "starting", then that of its run; "gone" when the process has ended.
        error: why it failed, in a line; lines: the last of what it said.
    """

    process: subprocess.Popen[str]
    folder: Path
    token: str
    step: int
    settings: Mapping[str, Any]
    run: Path | None = None
    stage: str = "starting"
    error: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    client: StudioClient | None = None
    seen: RemoteRun = field(default_factory=RemoteRun)
    """Its views."""
    goes_on: bool = False

    @property
    def name(self) -> str:
        """By which pages know it."""
        return "" if self.run is None else f"{self.run.parent.name}/{self.run.name}"

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.process.poll() is None

    def told(self) -> dict[str, Any]:
        """How it stands, as plain data."""
        state = self.client.state if self.client is not None else None
        told = {"run": self.name, "step": self.step, "settings": dict(self.settings), "alive": self.alive}
        told |= {"stage": self.stage, "error": self.error, "lines": list(self.lines) if self.error else []}
        if state is not None:
            told |= {"at": state.step, "max_steps": state.max_steps, "rate": state.rate, "metrics": state.metrics}
            told["stage"] = state.stage if self.alive else self.stage
        return told


def environment() -> dict[str, str]:
    """The environment variables for a child: those of this process, and what can be imported here can be there.

    None of a launcher's is among them: a child is alone, whoever trains with this process.
    """
    paths = [path for path in sys.path if path]
    return {**without_launcher(os.environ), "PYTHONPATH": os.pathsep.join(paths)}


def hear(child: Child) -> None:
    """Keep what a child's process says on stderr, line by line, until it ends; for a thread of its own."""
    assert child.process.stderr is not None
    for line in child.process.stderr:
        child.lines.append(line.rstrip())


def ended(child: Child, code: int) -> None:
    """Take note of how a child's process has ended, and remove what it leaves.

    `code` is what `Popen.returncode` says: below 0 a signal ended it. A process that failed has its error in a line
    of its own; of one that died otherwise, the last that it said is taken.
    """
    if code < 0:
        child.error = f"it was killed (signal {-code})"
    elif code:
        own = [line for line in child.lines if line.startswith("treadle: ")]
        child.error = (own or [*child.lines, f"exit code {code}"])[-1].removeprefix("treadle: ")
    child.stage = "gone"
    child.seen.close()
    if child.client is not None:
        child.client.close()
    shutil.rmtree(child.folder, ignore_errors=True)


def let_go(child: Child) -> None:
    """Tell a child that its parent ends, and whether it is to go on; nothing happens to one that has ended."""
    stdin = child.process.stdin
    if stdin is not None and not stdin.closed:
        with suppress(OSError, ValueError):
            if child.goes_on:
                stdin.write(GO_ON + "\n")
            stdin.close()


def await_end(child: Child, until: float) -> dict[str, Any]:
    """Wait for a child's end, and kill it where that does not come before `until`, in seconds of `time.monotonic`.

    Returns its run's name, and its exit code (below 0: by a signal).
    """
    try:
        child.process.wait(max(0.1, until - monotonic()))
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()
    return {"run": child.name, "code": child.process.returncode}
