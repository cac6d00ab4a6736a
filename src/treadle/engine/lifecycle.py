"""Where a run stands: one small state machine, with its legal transitions, its reason and its clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from treadle.errors import UsageError


class Stage(StrEnum):
    """Where a run stands. The last three are ends: nothing happens any more, unless the run is rewound."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    """Suspended between two steps; `train` and `iterate` go on."""
    FINISHED = "finished"
    FAILED = "failed"
    CLOSED = "closed"
    """Ended by `close` or an interrupt, before it was finished."""


ENDS = frozenset({Stage.FINISHED, Stage.FAILED, Stage.CLOSED})

NEXT: dict[Stage, frozenset[Stage]] = {
    Stage.NEW: frozenset({Stage.RUNNING, Stage.PAUSED, Stage.STOPPED}) | ENDS,
    Stage.RUNNING: frozenset({Stage.PAUSED, Stage.STOPPED}) | ENDS,
    Stage.PAUSED: frozenset({Stage.RUNNING, Stage.STOPPED}) | ENDS,
    Stage.STOPPED: frozenset({Stage.RUNNING, Stage.PAUSED}) | ENDS,
    Stage.FINISHED: frozenset({Stage.RUNNING}),
    Stage.FAILED: frozenset({Stage.RUNNING}),
    Stage.CLOSED: frozenset({Stage.RUNNING}),
}
"""Where a run can go from each stage; from an end, by a rewind or, once finished, an extension."""


class Lifecycle:
    """The stage of a run and why it is there; whether its first event has fired; the time spent in it.

    `began` and `finish_reason` are part of a run's state, the stage is not: a resumed run begins as a new one.
    Entering it (`with lifecycle:`) lets the clock run; that may be nested.
    """

    def __init__(self) -> None:
        self.stage = Stage.NEW
        self.ended = False
        """Whether no further step will be taken."""
        self.reason = ""
        self.began = False
        """Whether `pre_training` has fired; it does so once in a run's life, however often that is resumed."""
        self.finish_reason: str | None = None
        """Why the run is to end before its limit, once somebody has decided so."""
        self.in_step = False
        """Whether a step, or an event around it, is under way: what cannot happen within one waits for its end."""
        self._occupation = ""
        self._spent = self._entered = 0.0
        self._depth = 0
        self._measured: dict[str, float] | None = None
        self._paused_at = 0.0

    def to(self, stage: Stage, reason: str = "") -> None:
        """Go to `stage`; raises UsageError where no way leads there. Staying where it is changes nothing."""
        if stage is self.stage:
            return
        if stage not in NEXT[self.stage]:
            raise UsageError(f"a run that is {self.stage} cannot become {stage}: rewind it, or make a new trainer")
        if self.stage is Stage.PAUSED:
            self._spend("pause", self._paused_at)
        elif stage is Stage.PAUSED:
            self._paused_at = time.perf_counter()
        self.stage, self.reason = stage, reason
        self.ended = stage in ENDS

    def close(self) -> None:
        """End here, for the reason it was stopped for if it was; an end that is there already stays what it is."""
        if not self.ended:
            self.to(Stage.CLOSED, self.reason if self.stage is Stage.STOPPED else "closed")

    @contextmanager
    def occupied(self, what: str = "") -> Iterator[None]:
        """Within the block, what cannot happen inside a step cannot happen here either: in a validation, say.

        `what` is what it is called while it goes on; by default that of the block around it.
        """
        before = self.in_step, self._occupation
        self.in_step, self._occupation = True, what or self._occupation
        began = None if self._measured is None else time.perf_counter()
        try:
            yield
        finally:
            self.in_step, self._occupation = before
            if began is not None and what and not before[1]:
                self._spend(what, began)

    def measure(self, seconds: dict[str, float] | None) -> None:
        """Add to `seconds` from now on how long what is under way takes, by its name, and pauses; None: no more."""
        self._measured = seconds
        self._paused_at = time.perf_counter()

    def measured(self) -> dict[str, float] | None:
        """Seconds by name since `measure` was called, the pause under way included; None where nobody measures."""
        if self._measured is None or self.stage is not Stage.PAUSED:
            return self._measured
        return self._measured | {"pause": self._measured.get("pause", 0.0) + time.perf_counter() - self._paused_at}

    def _spend(self, what: str, began: float) -> None:
        """Take note of what has gone on since `began`; what is done in a pause is part of that."""
        if self._measured is not None and (what == "pause" or self.stage is not Stage.PAUSED):
            self._measured[what] = self._measured.get(what, 0.0) + time.perf_counter() - began

    @property
    def under_way(self) -> str:
        """What has to end before a command is obeyed: "step", "validation", "checkpoint", "rewind", "call" or nothing.

        May be asked for by any thread, at any time.
        """
        return self._occupation or ("step" if self.in_step else "")

    @property
    def status(self) -> str:
        """The stage as summaries name it: "new", "running", "stopped", "finished" or "failed"."""
        return {Stage.PAUSED: Stage.RUNNING, Stage.CLOSED: Stage.STOPPED}.get(self.stage, self.stage).value

    @property
    def seconds(self) -> float:
        """Seconds spent in the loop so far, over all sessions of a resumed run."""
        return self._spent + (time.perf_counter() - self._entered if self._depth else 0.0)

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._spent = value
        self._entered = time.perf_counter()

    def __enter__(self) -> Lifecycle:
        self._depth += 1
        if self._depth == 1:
            self._entered = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._spent += time.perf_counter() - self._entered
