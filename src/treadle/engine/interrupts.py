"""Signals: SIGINT and SIGTERM end a run after its current step, a second one at once; SIGUSR1 saves and goes on."""

from __future__ import annotations

import os
import signal
import socket
import threading
from types import FrameType, TracebackType
from typing import Any

from treadle.errors import UsageError
from treadle.terminal import say

STOPS = (signal.SIGINT, signal.SIGTERM)
SAVE: int | None = getattr(signal, "SIGUSR1", None)
MANAGERS = ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID")
"""Variables of those that start processes and end them: Slurm and its srun, torchrun."""


def comes_twice(number: int) -> bool:
    """Whether a signal may come more than once and be meant once.

    SIGTERM does where a manager starts processes: Slurm sends it to all of a job, torchrun or srun among them, which
    hand it on to the same processes once more. All of them send SIGKILL to what does not end.
    """
    return number == signal.SIGTERM and any(name in os.environ for name in MANAGERS)


class Interrupts:
    """While entered, turns signals into commands for `trainer`, in whatever thread that trains.

    - SIGINT (Ctrl-C) or SIGTERM: `train` returns after the current step, as after `trainer.stop()`. From then on both
      have their default action again: a second one ends the process at once, even in a step that never ends, and leaves
      the newest finished checkpoint as it is. Under Slurm and torchrun a second SIGTERM is ignored (`comes_twice`).
    - SIGUSR1, where the system has it: a checkpoint is written after the current step, and training goes on.

    `signal` is the one that stopped it, or None; `exit_code` is what a program should return for it (130 or 143).
    Must be entered in the main thread, which alone may handle signals; raises UsageError elsewhere.

    Example:
        with Interrupts(trainer) as interrupts:
            if trainer.train().status == "stopped":
                trainer.save()
        sys.exit(interrupts.exit_code)
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells count; 0 where none came."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            raise UsageError("Interrupts is entered in a thread: enter it in the main one, and train where you like")
        # The system's own handler writes the number into this socket at once. A Python handler would have to wait for
        # the main thread, which may be deep in a kernel, or for ever in a collective.
        self._ours, theirs = socket.socketpair()
        self._theirs = theirs
        theirs.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="treadle-signals", daemon=True)
        self._watcher.start()
        for number in STOPS if SAVE is None else (*STOPS, SAVE):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # None: it was not set from Python, and cannot be
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._theirs.close()
        self._watcher.join()
        self._ours.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two of its instructions; the watcher does the rest."""
        if number in STOPS:
            for stop in STOPS:
                signal.signal(stop, signal.SIG_IGN if comes_twice(stop) else signal.SIG_DFL)

    def _watch(self) -> None:
        while numbers := self._ours.recv(64):
            for number in numbers:
                if number in STOPS:
                    self._stop(number)
                elif number == SAVE:
                    self._save()
            if self._wakeup >= 0:  # somebody else's, such as asyncio's
                os.write(self._wakeup, numbers)

    def _stop(self, number: int) -> None:
        if self.signal is not None:
            if comes_twice(number):
                return
            # The default action is not back, so the main thread is stuck.
            os._exit(128 + number)
        self.signal = number
        self.trainer.stop(f"interrupted by {signal.Signals(number).name}")
        say("\nstopping after this step (once more: at once)")

    def _save(self) -> None:
        if self.trainer.run is None:
            say("treadle: nothing is saved: this is no run on disk (run_dir=)")
        else:
            self.trainer.commands.save()
