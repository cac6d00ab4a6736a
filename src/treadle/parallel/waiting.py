"""Waiting for a message between GPUs, which nothing ends by itself where another process has left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

LOOK = 1.0
"""Seconds after which a process that waits looks whether another has said that it leaves, and again each time."""
BRISK = 0.01
"""Seconds for which it asks without a pause: nearly all messages are through by then."""
PAUSE = 0.0002


class Work(Protocol):
    """What torch's collectives give where they do not wait."""

    def is_completed(self) -> bool:
        """Whether it is through."""

    def wait(self) -> object:
        """Let this process, or the GPU's stream, go on behind it; raises RuntimeError where it has failed."""


def poll(work: Work, left: Callable[[], bool], patience: float, abort: Callable[[], None]) -> None:
    """Wait until `work` is through.

    Args:
        work: what is under way.
        left: whether another process has said that it leaves.
        patience: seconds after which nobody is waited for any more.
        abort: gives up what is under way, with all others.

    Raises:
        RuntimeError: it has failed, another process has left, or patience is over.
    """
    began = looked = time.monotonic()
    while not work.is_completed():
        now = time.monotonic()
        if now - began > patience:
            abort()
            raise RuntimeError(f"Timed out after {patience:g} s")
        if now - looked > LOOK:
            looked = now
            if left():
                abort()
                raise RuntimeError("Connection closed by peer")
        time.sleep(PAUSE if now - began > BRISK else 0)
    work.wait()
