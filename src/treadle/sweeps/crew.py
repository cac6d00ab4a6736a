"""Workers in processes of their own: started, listened to, and ended together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from treadle.config.fields import from_dict
from treadle.engine.interrupts import comes_twice
from treadle.errors import RunError, TreadleError, UsageError
from treadle.files import number
from treadle.sweeps.trials import Trial
from treadle.sweeps.work import Failures, cores
from treadle.sweeps.worker import ENDED, ERROR
from treadle.terminal import say

WORKER = (sys.executable, "-P", "-m", "treadle.sweeps.worker")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
DEVICES = "CUDA_VISIBLE_DEVICES"
MOST_DEATHS = 3
"""Times that each of the workers may be killed before another trial ends: whatever does that would do it again."""

LEFT, SIGNALLED = "left", "signalled"


@dataclass(eq=False)
class Worker:
    """A process that trains trials, the `place` it has among the others, and where what it says is handed on."""

    process: subprocess.Popen[str]
    place: int
    messages: SimpleQueue[tuple[Any, ...]]

    def ask_to_stop(self) -> None:
        """Have it stop after the step under way."""
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended
            self.process.stdin.close()

    def listen(self) -> None:
        """Hand on what it says until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.messages.put((self, json.loads(line)))
        self.process.wait()
        self.messages.put((self, {"said": LEFT}))


class Crew:
    """The workers of this machine.

    Args:
        path: the sweep's directory.
        workers: how many processes.
        script: what `load_trainer` finds the trainer by; None for one of the registry.
        url: the database, with its password; None for the journal file.
        told: is given each trial that has ended, in this thread, one at a time.
        log: the sinks of the trials' runs.
        share_devices: where there are several GPUs, each worker sees one of them.
    """

    def __init__(
        self,
        path: Path,
        workers: int,
        script: str | None,
        url: str | None,
        told: Callable[[Trial], None],
        *,
        log: Sequence[str] = (),
        share_devices: bool = False,
    ) -> None:
        self._devices = visible_devices() if share_devices else []
        self._orders = {"sweep": str(path.absolute()), "trainer": script, "url": url, "log": list(log)}
        self._count, self._told = workers, told
        self._messages: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._workers: list[Worker] = []
        self._failures, self._deaths = Failures(), 0
        self._trouble: TreadleError | None = None
        self._signal = 0

    def work(self) -> int:
        """Have all trials trained; returns 0, or 130 or 143 where a signal came.

        Raises what ended the sweep otherwise, once all workers have left their trials resumable.
        """
        with self._heeding_signals():
            try:
                for place in range(self._count):
                    self._start(place)
                while self._workers:
                    self._take(*self._messages.get())
            finally:
                for worker in self._workers:  # only where something unforeseen was raised
                    worker.process.kill()
        if self._trouble is not None:
            raise self._trouble
        return 128 + self._signal if self._signal else 0

    def _start(self, place: int) -> None:
        threads = str(max(1, cores() // self._count))
        environment = {**dict.fromkeys(THREADS, threads), **os.environ}
        if len(self._devices) > 1:
            environment[DEVICES] = self._devices[place % len(self._devices)]
        process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which asks the workers to stop
        )
        worker = Worker(process, place, self._messages)
        self._workers.append(worker)
        assert process.stdin is not None
        with suppress(OSError):  # it has ended already, and that is heard of
            process.stdin.write(json.dumps(self._orders) + "\n")
            process.stdin.flush()
        threading.Thread(target=worker.listen, name="treadle-worker", daemon=True).start()

    def _take(self, worker: Worker | None, message: Mapping[str, Any]) -> None:
        what = message["said"]
        if what == ENDED:
            self._deaths = 0
            trial = _read(message["trial"])
            self._told(trial)
            try:
                self._failures.take(trial)
            except TreadleError as error:
                self._end(error)
        elif what == ERROR:
            self._end(UsageError(message["text"]) if message["code"] == 2 else RunError(message["text"]))
        elif what == SIGNALLED:
            self._heed(message["number"])
        elif worker is not None:
            self._workers.remove(worker)
            code = worker.process.returncode
            if code and self._trouble is None and not self._signal:
                self._replace(worker.place, code)

    def _replace(self, place: int, code: int) -> None:
        """Another worker for one that was killed; it finds the trial that was left, and goes on with it."""
        self._deaths += 1
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
        if self._deaths >= MOST_DEATHS * self._count:
            self._end(RunError(f"{self._deaths} workers ended before any trial did, the last one {how}"))
            return
        say(f"treadle: a worker {how}: another one goes on with its trial")
        self._start(place)

    def _end(self, error: TreadleError) -> None:
        """Let all workers stop, for a reason that is told in the end."""
        self._trouble = self._trouble or error
        for worker in self._workers:
            worker.ask_to_stop()

    def _heed(self, received: int) -> None:
        if self._signal and comes_twice(received):
            return
        if self._signal:
            for worker in self._workers:
                worker.process.kill()
            return
        self._signal = received
        say("\nstopping after the steps under way (once more: at once)")
        for worker in self._workers:
            worker.ask_to_stop()

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """Within, SIGINT and SIGTERM are messages among others, where this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(received: int, frame: Any) -> None:
            self._messages.put((None, {"said": SIGNALLED, "number": received}))

        before = {each: signal.signal(each, hear) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(DEVICES)
    if named is not None:
        return [device for device in named.split(",") if device.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _read(known: dict[str, Any]) -> Trial:
    known["values"] = [number(value) for value in known["values"]]
    return replace(from_dict(Trial, known, source="worker"), path=Path(known["path"]))
