"""The checkpoints of a loop of one's own: the store of a trainer's, without the trainer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from treadle.checkpoint.state import State
from treadle.checkpoint.store import (
    Retention,
    checkpoint_name,
    list_checkpoints,
    newest_good,
    step_of,
    write_checkpoint,
)
from treadle.checkpoint.writer import CheckpointWriter
from treadle.errors import RunError, StateError, UsageError
from treadle.files import reason
from treadle.runs.lock import RunLock
from treadle.terminal import say


class Checkpoints:
    """States in a directory, each written whole or not at all, synced, and checked by its SHA-256 when it is read.

    A process that is killed at any instant leaves the ones before it as they were. One process at a time writes: from
    its first `save` on a directory is held until the object is gone, and another's `save` says by whom. Of several
    processes that train together the main one saves; all may read.

    Args:
        directory: made by the first `save`, with what leads to it.
        keep: how many of the newest stay; at least 1. A second one is there should the newest be damaged.

    Example:
        checkpoints = Checkpoints("runs/mine")
        if (state := checkpoints.newest()) is not None:
            restore(objects, state)
        ...
        checkpoints.save(capture(objects), step)
    """

    def __init__(self, directory: str | Path, *, keep: int = 3) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise UsageError(f"keep is {keep!r}: expected a whole number of at least 1")
        self.directory = Path(directory)
        self._retention = Retention(last=keep)
        self._lock: RunLock | None = None
        self._writer: CheckpointWriter | None = None
        self._last = 0

    def save(self, state: State, step: int | None = None, *, wait: bool = True) -> Path:
        """Write `state`, and return where.

        Args:
            state: as `capture` gives it.
            step: finished steps, by which checkpoints are named and the newest is known; one that is there already is
                replaced, and later ones are given up. By default one more than the newest has.
            wait: whether to return only when it is on the disk. Otherwise the tensors are copied, and written beside
                what comes next; one that cannot be written is told on stderr, and raised by the next call. At the
                program's end, however it ends by itself, what is under way is finished.

        Raises:
            RunError: the disk refuses; what was there before is intact.
            UsageError: another process writes there, or `step` is no number of steps.
        """
        if step is None:
            step = max([self._last, *map(step_of, list_checkpoints(self.directory))]) + 1
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise UsageError(f"step is {step!r}: expected a whole number of 0 or more")
        self._hold()
        numbered = replace(state, clock=state.clock | {"step": step})
        if wait:
            self._finish()
            write_checkpoint(self.directory, numbered, self._retention)
        else:
            self._told(lambda writer: writer.submit(numbered, self._retention), self._beside())
        self._last = step
        return self.directory / checkpoint_name(step)

    def newest(self) -> State | None:
        """The newest state; None where there is no checkpoint. One that is damaged is named on stderr and passed over.

        Raises StateError where there are checkpoints and all are damaged.
        """
        self._finish()
        damaged = None
        for _, found in newest_good(self.directory):
            if isinstance(found, State):
                return found
            say(f"treadle: {found}; trying the one before it")
            damaged = found
        if damaged is not None:
            raise StateError(f"no checkpoint in {self.directory} can be read: move it away to start anew") from damaged
        return None

    def _hold(self) -> None:
        if self._lock is None:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"cannot write checkpoints to {self.directory}: {reason(error)}") from error
            self._lock = RunLock(self.directory)

    def _beside(self) -> CheckpointWriter:
        if self._writer is None:
            self._writer = CheckpointWriter(self.directory, _tell, patience=0)
            weakref.finalize(self, self._writer.close)
        return self._writer

    def _finish(self) -> None:
        """Wait for the write under way; raises RunError where it failed."""
        if self._writer is not None:
            self._told(CheckpointWriter.wait, self._writer)

    def _told(self, call: Callable[[CheckpointWriter], None], writer: CheckpointWriter) -> None:
        """Let a failure of the writer's be raised once: the call after it tries again."""
        try:
            call(writer)
        except RunError:
            self._writer = None
            writer.close()
            raise


def _tell(step: int, path: Path | None, text: str) -> None:
    if path is None:
        say(f"treadle: {text}")
