"""How long steps and epochs take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from treadle.engine.events import Hook, Order
from treadle.engine.trainer import Trainer


@dataclass
class Durations:
    """How many there were, and how long they took, in seconds."""

    count: int = 0
    total: float = 0.0
    fastest: float = float("inf")
    slowest: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.total += seconds
        self.fastest = min(self.fastest, seconds)
        self.slowest = max(self.slowest, seconds)

    @property
    def mean(self) -> float:
        """Seconds on average; NaN where there was none."""
        return self.total / self.count if self.count else float("nan")

    def __str__(self) -> str:
        if not self.count:
            return "none"
        return (
            f"mean {_short(self.mean)}, fastest {_short(self.fastest)}, slowest {_short(self.slowest)} ({self.count})"
        )


class Timing(Hook):
    """Measures every step and every epoch of this session: mean, fastest and slowest, on the wall clock.

    A step is what happens from its batch being there to its being counted. An epoch lasts to its end, with waiting for
    data and validation within it; one that is entered in its middle, after a resume, is not measured. On a GPU a step
    ends when its work is queued. At the end of training the journal gets both as "timing". Nothing of it is state.

    Attributes:
        steps, epochs: `Durations`.

    Example:
        timing = Timing()
        Trainer(..., hooks=[timing]).train()
        print(timing.steps)          # mean 74.1 ms, fastest 69.8 ms, slowest 1.2 s (1000)
    """

    order: ClassVar[int] = Order.EARLY

    def __init__(self) -> None:
        self.steps, self.epochs = Durations(), Durations()
        self._step = self._epoch = float("nan")

    def pre_epoch(self, trainer: Trainer) -> None:
        """Start the epoch's clock."""
        self._epoch = time.perf_counter()

    def pre_step(self, trainer: Trainer, batch: Any) -> None:
        """Start the step's clock."""
        self._step = time.perf_counter()

    def post_step(self, trainer: Trainer, batch: Any, outputs: Mapping[str, Any]) -> None:
        """Stop the step's clock."""
        self.steps.add(time.perf_counter() - self._step)

    def post_epoch(self, trainer: Trainer) -> None:
        """Stop the epoch's clock, if it saw the start."""
        if self._epoch == self._epoch:  # not NaN
            self.epochs.add(time.perf_counter() - self._epoch)

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Forget the epoch's start: what was loaded is somewhere else."""
        self._epoch = float("nan")

    def post_training(self, trainer: Trainer) -> None:
        """Tell the journal."""
        trainer.note("timing", steps=str(self.steps), epochs=str(self.epochs))


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
