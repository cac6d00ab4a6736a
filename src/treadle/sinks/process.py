"""A service's process: how it is started and ended, its pipes, what it prints."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from treadle.sinks.services.scrub import scrub
from treadle.sinks.services.wire import LONGEST_REPLY, Head, Reader

REAP_SECONDS = 1.0
"""A process that has said that it is done, or was killed, is gone within so many."""
SAID_BYTES = 2000
"""What is kept of the end of what a process prints."""
FLOOD_BYTES = 8 << 20
"""One that prints more in a second is not listened to for another: it waits."""

PIECES = 64
"""Are written at once, at most."""

BOOT = (
    "import importlib.util as u, sys; source = sys.argv.pop(1); "
    "s = u.spec_from_file_location('treadle', source + '/__init__.py', submodule_search_locations=[source]); "
    "m = sys.modules['treadle'] = u.module_from_spec(s); s.loader.exec_module(m); "
    "from treadle.sinks.services.carrier import main; main()"
)
"""What another interpreter runs: it finds this package, and nothing else of this environment."""


class Process:
    """A process that reads frames from a pipe and answers on another.

    Args:
        selector: waits for its pipes.
        guarded: calls a function; what that raises is about this process.
        load: puts what is to be written next into `pending`; whether there was something.
        obey: takes note of an answer.
        died: is told how it has ended by itself.

    Attributes:
        pending: pieces that are to be written.
        started: when it was started last, by `time.monotonic`.
        deaf_until: it is not listened to before that; 0: it is.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        guarded: Callable[[Callable[[], None]], None],
        load: Callable[[], bool],
        obey: Callable[[Head], None],
        died: Callable[[str], None],
    ) -> None:
        self._selector, self._guarded = selector, guarded
        self._load, self._obey, self._died = load, obey, died
        self.pending: deque[bytes | memoryview] = deque()
        self.started = self.deaf_until = 0.0
        self._waits_for_room = False
        self._process: subprocess.Popen[bytes] | None = None
        self._descriptors: list[int] = []
        self._inbox = self._output = -1
        self._reader = Reader()
        self._said = b""
        self._heard = 0.0, 0

    @property
    def running(self) -> bool:
        """Whether there is one that has not been ended here."""
        return self._process is not None

    def start(self, python: str) -> None:
        """Start it, with that interpreter."""
        inbox, self._inbox = os.pipe2(os.O_CLOEXEC)
        replies, answers = os.pipe2(os.O_CLOEXEC)
        self._output, output = os.pipe2(os.O_CLOEXEC)
        self._descriptors = [self._inbox, replies, self._output]
        for descriptor in self._descriptors:
            os.set_blocking(descriptor, False)
        self._said, self._reader = b"", Reader(LONGEST_REPLY, 0)
        self.started = time.monotonic()
        environment = dict(os.environ)
        program = ["-m", "treadle.sinks.services.carrier"]
        if python == sys.executable:
            environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        else:
            program = ["-c", BOOT, str(Path(__file__).parents[1])]
        try:
            self._process = subprocess.Popen(
                [python, "-P", *program, str(inbox), str(answers), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(inbox, answers),
                start_new_session=True,
                env=environment,
            )
        finally:
            for descriptor in (inbox, answers, output):
                os.close(descriptor)
        self._register(replies, selectors.EVENT_READ, lambda: self._hear(replies))
        self._register(self._output, selectors.EVENT_READ, self._overhear)

    def listen(self, now: float) -> None:
        """Listen again to one that has printed too much."""
        if self.deaf_until and now >= self.deaf_until:
            self.deaf_until = 0.0
            self._register(self._output, selectors.EVENT_READ, self._overhear)

    def send(self) -> None:
        """Write what waits, as far as the pipe takes it and the answers keep up.

        Many pieces in one call: around each the training thread may be held up.
        """
        while self._inbox != -1:
            while len(self.pending) < PIECES and self._load():
                pass
            if not self.pending:
                break
            try:
                written = os.writev(self._inbox, list(islice(self.pending, PIECES)))
            except BlockingIOError:
                if not self._waits_for_room:
                    self._waits_for_room = True
                    self._register(self._inbox, selectors.EVENT_WRITE, self.send)
                return
            except BrokenPipeError:  # it has died, which is heard elsewhere
                self.pending.clear()
                break
            while written:
                piece = self.pending.popleft()
                if written < len(piece):
                    self.pending.appendleft(memoryview(piece)[written:])
                written = max(0, written - len(piece))
        if self._waits_for_room:
            self._waits_for_room = False
            self._selector.unregister(self._inbox)

    def end(self, *, kill: bool) -> None:
        """Let go of the process; with `kill` end it, and whatever it has started."""
        process, self._process = self._process, None
        if process is not None:
            if kill:
                _kill(process)
            try:
                process.wait(REAP_SECONDS)
            except subprocess.TimeoutExpired:
                _kill(process)
        for descriptor in self._descriptors:
            with suppress(KeyError):
                self._selector.unregister(descriptor)
        self.let_go()
        self.pending.clear()

    def let_go(self) -> None:
        """Close the descriptors."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self._inbox = self._output = -1
        self._waits_for_room, self.deaf_until = False, 0.0

    def _register(self, descriptor: int, events: int, action: Callable[[], None]) -> None:
        self._selector.register(descriptor, events, lambda: self._guarded(action))

    def _hear(self, replies: int) -> None:
        """Take in what the process answers."""
        data = os.read(replies, 1 << 16)
        if not data:
            return self._end_of_it()
        for head, _ in self._reader.feed(data):
            self._obey(head)

    def _end_of_it(self) -> None:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_SECONDS)
        code = self._process.poll()
        self._overhear()
        last = self._said.decode(errors="replace").strip().rpartition("\n")[2]
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        self._died(scrub(f"its process {how}" + (f": {last}" if last else "")))

    def _overhear(self) -> None:
        """Keep the end of what the process prints; one that never ends is listened to with pauses."""
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        self._said = (self._said + data)[-SAID_BYTES:]
        now = time.monotonic()
        since, heard = self._heard
        self._heard = (since, heard + len(data)) if now < since + 1.0 else (now, len(data))
        if not data or self._heard[1] > FLOOD_BYTES:
            with suppress(KeyError):
                self._selector.unregister(self._output)
            if data:
                self.deaf_until = now + 1.0


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it has started in its session."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(REAP_SECONDS)
