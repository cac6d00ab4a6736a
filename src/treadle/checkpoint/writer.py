"""Writing checkpoints beside the training: a quick copy on its thread, everything else on another."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from treadle.checkpoint.state import State
from treadle.checkpoint.store import Retention, checkpoint_name, write_checkpoint
from treadle.checkpoint.tensorfile import check_dtypes
from treadle.errors import RunError
from treadle.kernels import streaming

Report = Callable[[int, Path | None, str], None]
"""Called on the writer's thread: (step, path, digest) of a checkpoint, or (step, None, error)."""


class CheckpointWriter:
    """Writes the checkpoints of one run, one at a time, in a thread of its own.

    `submit` copies the tensors into buffers that are kept from one checkpoint to the next (fresh memory would cost a
    page fault per 4 KB, six times the copy itself) and returns; the thread hashes, writes and syncs. While a write is
    under way the next `submit` waits for it, so memory stays at one copy of the state.

    The thread gives way to training where cores are scarce: a write then takes longer, and steps take no longer.

    A write that fails is reported and tried again with the next checkpoint, until the newest good one (or the start)
    is more than `patience` seconds old: then `submit` and `wait` raise the RunError.

    Args:
        directory: where the checkpoints go.
        report: told of each written or failed checkpoint, on the writer's thread.
        patience: seconds for which failing writes are put up with.
        first: called on the thread before each checkpoint, for what must be on the disk before it is.
    """

    def __init__(
        self, directory: Path, report: Report, patience: float, first: Callable[[], None] = lambda: None
    ) -> None:
        self._directory = directory
        self._first = first
        self._report = report
        self._patience = patience
        self._buffers: State | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._error: RunError | None = None
        self._last_good = time.monotonic()

    def prepare(self, state: State) -> None:
        """Have the thread find memory for states like `state`, so that the first `submit` does not have to; no wait."""
        if self._buffers is None and self._pending is None:
            shapes = {path: (tensor.shape, tensor.dtype) for path, tensor in state.tensors.items()}
            self._pending = self._thread().submit(self._find_memory, shapes)

    def submit(self, state: State, retention: Retention) -> None:
        """Copy `state` and have it written; waits only while the write before it is not done.

        Raises StateError for a tensor that no checkpoint can hold, RunError when writes have failed for too long.
        """
        check_dtypes(state.tensors)
        self._join()
        self._give_up_if_late()
        self._buffers = state.copy(into=self._buffers)
        self._pending = self._thread().submit(self._write, self._buffers, retention)

    def wait(self) -> None:
        """Wait for the write under way; raises RunError if the newest one failed."""
        self._join()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Wait for the write under way and end the thread; a failure was reported, and is not raised again."""
        self._join()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._buffers = None

    def _thread(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="treadle-checkpoint", initializer=_give_way)
        return self._pool

    def _find_memory(self, shapes: Mapping[str, tuple[torch.Size, torch.dtype]]) -> None:
        buffers = {path: _touched(torch.empty(shape, dtype=dtype)) for path, (shape, dtype) in shapes.items()}
        self._buffers = State({}, buffers, {})
        for buffer in buffers.values():
            if streaming.can_stream(buffer):  # compile beside the training, not in the first snapshot
                streaming.prepare()
                break

    def _join(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _give_up_if_late(self) -> None:
        late = time.monotonic() - self._last_good
        if self._error is not None and late > self._patience:
            raise RunError(f"{self._error} (no checkpoint could be written for {late:.0f} s)") from self._error

    def _write(self, state: State, retention: Retention) -> None:
        try:
            self._first()
            path, digest = write_checkpoint(self._directory, state, retention)
        except Exception as error:
            # Whatever it is, training has the choice: it is reported, and raised where writes are waited for.
            target = self._directory / checkpoint_name(state.step)
            failure = f"cannot write checkpoint {target}: {type(error).__name__}: {error}"
            self._error = error if isinstance(error, RunError) else RunError(failure)
            self._report(state.step, None, str(self._error))
        else:
            self._error = None
            self._last_good = time.monotonic()
            self._report(state.step, path, digest)


def _touched(buffer: Tensor) -> Tensor:
    """Write to all of `buffer`: memory that was only asked for has no pages yet.

    By NumPy: a torch operator would start a team of OpenMP threads for this thread too, and where there are more of
    them than cores, those of the training sleep between two operators instead of spinning: pix2pix took 100 ms a step
    instead of 70.
    """
    buffer.view(-1).view(torch.uint8).numpy().fill(0)
    return buffer


def _give_way() -> None:
    """Lower the priority of the calling thread; only Linux has priorities of threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 10)
