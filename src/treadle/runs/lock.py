"""One process at a time trains a run."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import socket
import weakref
from pathlib import Path

from treadle.errors import UsageError
from treadle.files import open_regular, read_regular, reason, refuse_foreign

LOCK = ".lock"


class RunLock:
    """Holds a run for this process, until `release` or the process's end, however it ends.

    The operating system keeps the lock (flock), so a killed process leaves none behind. Raises UsageError naming the
    process that has the run, or why the run cannot be written: also for a link in it that leads elsewhere.
    """

    def __init__(self, run: Path) -> None:
        self._descriptor: int | None = None
        refuse_foreign(run)
        try:
            self._descriptor = open_regular(run / LOCK, os.O_RDWR | os.O_CREAT)
            self._take(self._descriptor)
        except BlockingIOError:
            assert self._descriptor is not None
            holder = _read(self._descriptor)
            self.release()
            raise UsageError(f"{run} is being trained by {holder}: wait for it, or stop it first") from None
        except OSError as error:
            self.release()
            raise UsageError(f"{run} cannot be trained: {LOCK}: {_remedy(error)}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        _held.add(self)

    @staticmethod
    def _take(descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _read(descriptor) != _named(os.getpid(), socket.gethostname()):
                raise
            gc.collect()  # a trainer that this program has dropped, and Python not yet
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let others have the run; so does dropping this."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.release()


def is_held(run: Path) -> bool:
    """Whether somebody trains the run now, this process included; nothing is written.

    Of other machines that is known where the file system's locks reach them.
    """
    try:
        descriptor = open_regular(run / LOCK)
    except OSError:
        return False  # nobody ever has
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def last_host(run: Path) -> str | None:
    """The machine whose process had the run last, or has it now; None where that is not known."""
    try:
        host = json.loads(read_regular(run / LOCK))["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return host if isinstance(host, str) else None


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _drop_copies() -> None:
    """In a forked child: its copy of the descriptor would keep the run locked after its parent's end."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_drop_copies)


def _remedy(error: OSError) -> str:
    why = reason(error)
    return why if why != error.strerror else f"{why}; make it writable, or copy the run"


def _read(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return _named(holder["pid"], holder["host"])
    except (ValueError, KeyError, TypeError):
        return "another process"


def _named(process: int, host: str) -> str:
    return f"process {process} on {host}"
