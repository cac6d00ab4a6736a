"""What is said to people, on streams that may be gone: a closed pipe, a full disk, a terminal that hung up.

Nobody's work ends because nobody reads about it. Everything that Treadle prints goes through `say`, or through a stream
that is made `Steady`; the command line makes the standard streams so, for a trainer's own `print` as well.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

PATIENCE = 1.5
"""Seconds that something may take without a word about it."""


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line to `file`, by default standard error; where it cannot be written, it is lost without a word."""
    stream = steady(file or sys.stderr)
    if stream is not None:
        print(text, file=stream, flush=True)


def tell_when_slow(doing: str) -> Callable[[int, int, str], None]:
    """A function to be told before each stage how many are done, of how many, and what comes; says so once it is slow.

    Args:
        doing: what the stages are parts of, such as "compiling the kernels".
    """
    began = time.perf_counter()

    def tell(done: int, of: int, what: str) -> None:
        if what and time.perf_counter() - began > PATIENCE:
            say(f"treadle: {doing}: {what} ({done + 1} of {of})")

    return tell


class Steady:
    """A text stream as it is, except that `write` and `flush` never raise for a stream that is closed, full or gone.

    What cannot be written is lost; the next write is tried again, for a disk may have room by then. What the stream's
    encoding cannot say is written as an escape, such as "\\u221e".
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` or lose it; returns its length."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError):  # ValueError: it is closed
            _leave_quietly()
        return len(text)

    def flush(self) -> None:
        """Have what was written on its way."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            _leave_quietly()

    def isatty(self) -> bool:
        """Whether it is a terminal, and one that is still there."""
        try:
            return self._stream.isatty()
        except (OSError, ValueError, AttributeError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def steady(stream: TextIO | None) -> TextIO | None:
    """The stream made `Steady`; None (a standard stream that the process was started without) stays None."""
    return stream if stream is None or isinstance(stream, Steady) else cast(TextIO, Steady(stream))


@contextmanager
def steady_streams() -> Iterator[None]:
    """Within, standard output and standard error are `Steady`, whoever prints.

    The descriptor of one that the process was started without (`2>&-`) leads nowhere, so no file of a run can get it.
    """
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(free)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(steady, before)
    try:
        yield
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def outliving_the_terminal() -> Iterator[None]:
    """Within, the hang-up of the terminal (SIGHUP) ends nothing, unless the program handles it itself.

    Must be entered in the main thread. Processes that are started meanwhile inherit it.
    """
    ours = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)


_leaving_quietly = False


def _leave_quietly() -> None:
    """Let the interpreter not complain, at its end, of what a standard stream still holds and cannot write."""
    global _leaving_quietly
    if not _leaving_quietly:
        _leaving_quietly = True
        atexit.register(_drop_what_is_held)


def _drop_what_is_held() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except ValueError:
            pass  # it is closed, and holds nothing
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)
