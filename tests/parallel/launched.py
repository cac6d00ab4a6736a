"""Programs under a real torchrun: started, waited for, and looked for when all of their processes should be gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

MARK = "TREADLE_LAUNCHED"
"""A variable that all processes of a launch have, also when nobody is their parent any more."""
SECONDS = 250.0
"""A launch that takes longer hangs."""


class Launched:
    """A torchrun, and the processes that it has started.

    Args:
        options: torchrun's own, such as ("--standalone", "--nproc-per-node", "2").
        program: what it starts, with its arguments.
        place: where what it says is written.
        name: of this launch, which no other one in `place` has.
        before: the command that starts torchrun, such as ("ip", "netns", "exec", "host").
    """

    def __init__(
        self,
        options: Sequence[str],
        program: Sequence[str],
        place: Path,
        name: str,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.mark = f"{MARK}={place}/{name}"
        self.log = place / f"{name}.log"
        source = str(Path(__file__).parents[2] / "src")
        given = {MARK: f"{place}/{name}", "OMP_NUM_THREADS": "1", "PYTHONPATH": source, "TREADLE_TIMEOUT": str(SECONDS)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "torch.distributed.run", *options, "--", *program],
                env={**os.environ, **given, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        """What its processes have printed."""
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit code of torchrun itself. Raises TimeoutError, with what was said; then all processes are ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"torchrun has not ended in {seconds:g} s:\n{self.said}") from None

    def alive(self) -> list[int]:
        """The numbers of its processes, torchrun's among them, that there still are."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if self.mark.encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def wait_for_all(self, seconds: float) -> tuple[float, list[int]]:
        """Wait until none is left; for how many seconds there were some, and those that are still there after all."""
        began = time.monotonic()
        while (left := self.alive()) and time.monotonic() - began < seconds:
            self.process.poll()
            time.sleep(0.1)
        return time.monotonic() - began, left

    def kill(self) -> None:
        """End all of them at once, as when the power goes: torchrun first, which would start others."""
        self.process.kill()
        while alive := [number for number in self.alive() if number != self.process.pid]:
            for number in alive:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        self.process.wait()


def program(task: str) -> list[str]:
    """The program of `member.py`, with its task."""
    return [str(Path(__file__).with_name("member.py")), task]


def answers(said: str) -> list[list[Any]]:
    """What the processes of `member.py` have said of their end: [process, status, digest], by process."""
    lines = [line.split()[1:] for line in said.splitlines() if line.startswith("member: ")]
    return sorted([int(rank), status, digest] for rank, status, digest in lines)
