"""Ctrl-C and SIGTERM: the first one ends the run after its current step, the second one at once."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, turns SIGINT and SIGTERM into a stop of `trainer` between two steps.

    `signal` is the last one that came, or None; `exit_code` is what the command returns for it (130 or 143). A second
    signal raises KeyboardInterrupt where the program stands. Only the main thread may enter it.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells count; 0 where none came."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> Interrupts:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.signal = self.signal is not None, number
        if again:
            raise KeyboardInterrupt
        self.trainer.stop(f"interrupted by {signal.Signals(number).name}")
        print("\nstopping after this step (once more: at once)", file=sys.stderr, flush=True)
