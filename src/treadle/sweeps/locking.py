"""What several processes of a sweep do one at a time; a lock that the system takes from who dies with it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle.errors import UsageError
from treadle.files import open_regular, reason

PATIENCE = 60.0
"""Seconds that a lock is waited for: what is done under one takes milliseconds."""
LOOK_SECONDS = 0.02


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Within the block the file at `path` is this process's; gives its descriptor, open for reading and writing.

    Raises UsageError where it cannot be opened, its file system has no locks, or somebody keeps it for longer than
    anybody should: a process that was suspended.
    """
    try:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {reason(error)}; make it writable, or make room") from None
    try:
        until = time.monotonic() + PATIENCE
        while not _taken(descriptor, path):
            if time.monotonic() > until:
                raise UsageError(
                    f"{path} has been locked for {PATIENCE:g} s by a process that does not go on: look for one that is "
                    "suspended (fg, or kill it), then start the sweep again"
                )
            time.sleep(LOOK_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UsageError(
            f"{path} cannot be locked: {reason(error)}; give a directory on a file system that has locks (--run)"
        ) from None
    return True
