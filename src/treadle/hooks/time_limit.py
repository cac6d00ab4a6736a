"""Stops a run, resumable, after so much time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from treadle.engine.events import Hook
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError


class TimeLimit(Hook):
    """Stops after `seconds` of this session, at the end of a step, with a checkpoint where the run is on disk.

    A session begins with its first step: a run that is continued after the limit, in the same program or by a resume,
    has the whole time again, which fits a queue that grants jobs of so many hours. It is wall-clock time: pauses count.
    Before `min_steps` it does not stop.

    Args:
        seconds: above 0, finite.

    Example:
        summary = Trainer(..., hooks=[TimeLimit(3600)]).train()   # or: Trainer(..., max_time=3600)
        assert summary.status == "finished" or summary.reason == "time limit"
    """

    def __init__(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and seconds > 0):
            raise UsageError(f"time limit is {seconds} seconds: expected a finite number above 0")
        self.seconds = seconds
        self._end: float | None = None

    def pre_step(self, trainer: Trainer, batch: Any) -> None:
        """Start the clock with the first step."""
        if self._end is None:
            self._end = time.monotonic() + self.seconds

    def post_step(self, trainer: Trainer, batch: Any, outputs: Mapping[str, Any]) -> None:
        """Stop, where the time is over."""
        if self._end is not None and time.monotonic() >= self._end and trainer.progress.may_end:
            self._end = None
            if trainer.run is not None:
                trainer.request_save()
            trainer.stop("time limit")
