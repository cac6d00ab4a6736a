"""Optuna's journal in one file, for any number of processes, whichever of them is killed when.

The lines are those of Optuna's own `JournalFileBackend`, so its dashboard and programs read the file. Written here, it
has two things more. The lock is the system's: a process that dies holds nothing, and nobody waits for the half minute
after which Optuna breaks the lock of a dead one. And a line that a kill or a full disk has torn off is cut away before
the next one is written, which would else be glued to it and make all that follows unreadable.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from treadle.errors import RunError, UsageError
from treadle.files import end_of_last_line, open_regular, reason
from treadle.sweeps.locking import locked


class JournalFile(BaseJournalBackend):
    """The journal at `path`; made with the first line.

    Reading raises RunError naming a damaged line that is not the last, writing UsageError where the disk refuses: then
    the file is as it was before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places = [0]
        """Where each line begins that has been read, and the one after it."""

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The entries from that number on; a torn last line is none."""
        first = min(log_number_from, len(self._places) - 1)
        place = self._places[first]
        try:
            with os.fdopen(open_regular(self.path), "rb") as file:
                file.seek(place)
                content = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"{self.path} cannot be read: {reason(error)}") from None
        for count, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(keepends=True), first):
            place += len(line)
            if count + 1 == len(self._places):
                self._places.append(place)
            if count < log_number_from:
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                raise RunError(
                    f"{self.path}, line {count + 1} is damaged: restore the file from a copy, or delete that line"
                ) from None
            yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries, all or none of them, and wait until they are on the disk."""
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs).encode()
        with locked(self.path) as descriptor:
            end = end_of_last_line(descriptor, os.fstat(descriptor).st_size)
            try:
                os.ftruncate(descriptor, end)
                if os.pwrite(descriptor, lines, end) < len(lines):  # a disk that fills takes the beginning
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            except OSError as error:
                os.ftruncate(descriptor, end)
                raise UsageError(f"cannot write {self.path}: {reason(error)}; make room, then start again") from error
