"""A pool of worker processes that make batches for any number of iterators, and never outlive their owner."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as mp_connection
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import torch

from treadle.data.batch import Batch
from treadle.data.fetch import Fetch, SampleError
from treadle.data.transport import pack, pack_dataset, receive, send, unpack, unpack_dataset
from treadle.errors import RunError, UsageError, one_line

_GRACE = 2.0
"""Seconds a worker has to end its sample when the pool is closed, before it is killed."""


# In the worker ---------------------------------------------------------------------------------------------------


def _work(connection: Connection, threads: int) -> None:
    """A worker's life: receive the dataset, then answer tasks until the pool hangs up."""
    # A signal to the whole process group is for the owner: it may want more batches to end its step, and hangs up
    # when it is done. The owner blocked both signals around our start, so that none could come in between.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    threading.Thread(target=_die_with_owner, daemon=True).start()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, ConnectionError):
        fetch: Fetch = unpack_dataset(connection.recv_bytes())
        send(connection, (None, None), [])
        while True:
            task = connection.recv()
            if task is None:
                return
            ticket, *what = task
            try:
                pieces, failure = pack(fetch(*what)), None
            except Exception as error:
                pieces, failure = [], _failure(error)
            send(connection, (ticket, failure), pieces)


def _die_with_owner() -> None:
    """End at once when the owner is gone, even in the middle of a sample that never ends."""
    owner = parent_process()
    assert owner is not None
    mp_connection.wait([owner.sentinel])
    os._exit(1)


def _failure(error: Exception) -> tuple[str, str, str]:
    kind = "sample" if isinstance(error, SampleError) else "usage" if isinstance(error, UsageError) else "run"
    if isinstance(error, SampleError | UsageError | RunError):
        text = str(error)
    else:
        text = f"the batch could not be sent by a data worker: {one_line(error)}"
    return kind, text, traceback.format_exc()


# In the owner ----------------------------------------------------------------------------------------------------


@dataclass
class _Mailbox:
    """What has come back from the workers, by ticket. Shared with the reader threads, which must not keep the pool."""

    arrived: threading.Condition = field(default_factory=threading.Condition)
    answers: dict[int, tuple[Any, list[Any]]] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)
    ready: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)


def _read(worker: int, connection: Connection, mailbox: _Mailbox) -> None:
    """A reader thread: take in what one worker sends, so that transfers overlap with training."""
    try:
        while True:
            (ticket, failure), pieces = receive(connection)
            with mailbox.arrived:
                if ticket is None:
                    mailbox.ready.add(worker)
                elif ticket in mailbox.wanted:
                    mailbox.answers[ticket] = (failure, pieces)
                mailbox.arrived.notify_all()
    except (EOFError, OSError):
        with mailbox.arrived:
            mailbox.gone.add(worker)
            mailbox.arrived.notify_all()


class WorkerPool:
    """`count` spawned processes that hold one dataset each.

    `submit` hands a task to a worker and returns a ticket; `take` waits for its batch. Closed by `close`, when it is
    garbage collected, and at the program's exit; workers also end by themselves when their owner disappears.

    Raises UsageError, when made, for a dataset or collate function that cannot be sent to another process.
    """

    def __init__(self, fetch: Fetch, count: int, threads: int) -> None:
        packed = [_pack(fetch) for _ in range(count)]
        context = get_context("spawn")
        self._mailbox = _Mailbox()
        self._tickets = itertools.count()
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        readers: list[threading.Thread] = []
        # Before the first start, so that an interrupt in the middle of it leaves no worker behind.
        self._finalizer = weakref.finalize(
            self, _shut_down, os.getpid(), self._processes, self._connections, readers, self._mailbox
        )
        # Ours must run before multiprocessing's own exit function, which would wait for the workers; it does, being
        # registered later. weakref's own exit hook may be older.
        self._finalizer.atexit = False
        atexit.register(self._finalizer)
        # Started before the signals are blocked: its start would unblock them again.
        resource_tracker.ensure_running()
        with _signals_blocked():
            for worker in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, threads), name=f"treadle-data-{worker}", daemon=True
                )
                process.start()
                # Our copy of their end: while it is open the end of the worker would go unnoticed.
                theirs.close()
                self._processes.append(process)
                self._connections.append(ours)
        for worker, (connection, data) in enumerate(zip(self._connections, packed, strict=True)):
            # A worker that is gone by now is reported by `take`.
            with contextlib.suppress(OSError):
                connection.send_bytes(data)
            reader = threading.Thread(
                target=_read, args=(worker, connection, self._mailbox), name=f"treadle-data-{worker}", daemon=True
            )
            reader.start()
            readers.append(reader)

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid or -1 for process in self._processes]

    def submit(self, worker: int, seed: int, epoch: int, indices: Sequence[int]) -> int:
        """Ask `worker` for the batch of `indices`; returns the ticket to take it by."""
        ticket = next(self._tickets)
        with self._mailbox.arrived:
            self._mailbox.wanted.add(ticket)
        with contextlib.suppress(OSError):
            self._connections[worker].send((ticket, seed, epoch, indices))
        return ticket

    def take(self, worker: int, ticket: int) -> Batch:
        """Wait for a batch. Raises what went wrong with it, or RunError where the worker is gone."""
        mailbox = self._mailbox
        with mailbox.arrived:
            while ticket not in mailbox.answers:
                if worker in mailbox.gone:
                    raise RunError(self._obituary(worker))
                mailbox.arrived.wait()
            failure, pieces = mailbox.answers.pop(ticket)
            mailbox.wanted.discard(ticket)
        if failure is None:
            return unpack(pieces)
        kind, text, where = failure
        error = {"sample": SampleError, "usage": UsageError}.get(kind, RunError)(text)
        error.add_note(f"in data worker {worker}:\n{where}")
        raise error

    def abandon(self, tickets: Sequence[int]) -> None:
        """Forget tickets that nobody will take; their batches are dropped when they come."""
        with self._mailbox.arrived:
            for ticket in tickets:
                self._mailbox.wanted.discard(ticket)
                self._mailbox.answers.pop(ticket, None)

    @property
    def waiting(self) -> int:
        """How many batches are here that nobody has taken yet."""
        return len(self._mailbox.answers)

    @property
    def broken(self) -> bool:
        """Whether a worker is gone."""
        return bool(self._mailbox.gone)

    def close(self) -> None:
        """End the workers. Harmless when they are ended already."""
        atexit.unregister(self._finalizer)
        self._finalizer()

    def _obituary(self, worker: int) -> str:
        process = self._processes[worker]
        process.join(_GRACE)
        code = process.exitcode
        if code is not None and code < 0:
            end = f"was killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                end += " (often: out of memory; use fewer workers or smaller batches)"
        else:
            end = f"ended with exit code {code}"
        text = f"data worker {worker} (pid {process.pid}) {end}"
        if worker in self._mailbox.ready:
            return text
        return (
            f"{text} before it had the dataset: in a script, start training under `if __name__ == '__main__':`, and "
            "define the dataset's class in a module that can be imported; or set workers=0"
        )


def _pack(fetch: Fetch) -> bytes:
    """`fetch` for a worker; a UsageError names the part that cannot travel."""
    try:
        return pack_dataset(fetch)
    except Exception as error:
        try:
            pack_dataset(fetch.collate)
            what = f"the dataset ({type(fetch.dataset).__name__})"
        except Exception:
            what = "the collate function"
        raise UsageError(
            f"{what} cannot be sent to worker processes: {one_line(error)}; define it at the top of a module, open "
            "files and handles lazily (and drop them in __getstate__), or set workers=0"
        ) from error


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Children started inside begin with SIGINT and SIGTERM blocked; ours are delivered afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shut_down(
    owner: int, processes: list[Any], connections: list[Connection], readers: list[threading.Thread], mailbox: _Mailbox
) -> None:
    if os.getpid() != owner:
        return  # a forked copy of the owner: the workers are not its own
    with mailbox.arrived:
        mailbox.wanted.clear()
        mailbox.answers.clear()
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.send(None)
    deadline = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    for reader in readers:
        # Garbage may be collected in any thread, also in a reader.
        if reader is not threading.current_thread():
            reader.join(_GRACE)
    for connection in connections:
        connection.close()
