"""Waiting for something to be so after a step: a goal that a run is let go on to, and breakpoints."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from treadle.engine.lifecycle import Lifecycle, Stage
from treadle.engine.progress import Progress
from treadle.engine.until import Until
from treadle.errors import UsageError
from treadle.parallel import ALONE, World

_RULES: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Act = Literal["pause", "mark"]
MOST_BREAKPOINTS = 100


@dataclass(frozen=True)
class Newest:
    """What is known when a step is finished: what it returned, the newest metrics, and what is best."""

    outputs: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    validation_metrics: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, Any] | None = None


class Watch:
    """Waits for an `Until` from the moment it is made: a past event or epoch does not count.

    Args:
        until: what is waited for.
        progress: the run's counters now.
        best: what is best now.
        larger: whether more of a metric, by name, is better.
    """

    def __init__(
        self,
        until: Until,
        progress: Progress,
        best: Mapping[str, Any] | None = None,
        larger: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.until = until
        self._epoch = int(until.value) or progress.epoch + 1
        self._happened = False
        self._told = -1 if best is None else best["step"]
        self._larger = larger(until.name.rpartition("/")[2]) if until.kind == "stall" else False
        self._source: Mapping[str, Any] | None = None
        self._value: float | None = None
        self._count = 0

    def journal(self, event: str) -> None:
        """An entry was added to the journal."""
        wanted = self.until.name if self.until.kind == "event" else "bad step"
        self._happened |= self.until.kind in ("event", "nan") and event == wanted

    def reached(self, progress: Progress, newest: Newest) -> bool:
        """Whether it is so now that a step is finished."""
        match self.until.kind:
            case "step":
                return progress.step >= self.until.value
            case "epoch":
                return progress.epoch >= self._epoch
            case "event":
                return self._happened
            case "best":
                return self._is_best(progress, newest.best)
            case "nan":
                known = (newest.outputs, newest.metrics, newest.validation_metrics)
                return self._happened or not all(math.isfinite(_number(v)) for part in known for v in part.values())
        value = self._new_value(newest)
        if value is not None:
            self._count = self._count + 1 if self._counts(value) else 0
        return self._count >= self.until.times

    def begin_anew(self, progress: Progress) -> None:
        """It was so: wait for the next time."""
        self._happened = False
        self._epoch = progress.epoch + 1
        if self.until.kind == "stall":
            self._count = 0

    def _is_best(self, progress: Progress, best: Mapping[str, Any] | None) -> bool:
        if progress.step < self._told:  # the run has gone back, to where this one was the best
            self._told = -1 if best is None or best["step"] >= progress.step else best["step"]
        if best is None or best["step"] == self._told or best["step"] < progress.step - 1:
            return False
        self._told = best["step"]
        return True

    def _new_value(self, newest: Newest) -> float | None:
        """The metric that is waited for, where it has been measured since the last look; else None."""
        split, _, name = self.until.name.partition("/")
        name = name if split in ("validation", "train") else self.until.name
        if split == "validation":
            source = newest.validation_metrics
        else:
            source = newest.outputs if name in newest.outputs else newest.metrics
        before, self._source = self._source, source
        # The outputs of two steps may be one object; those of a log interval or a validation are a new one each.
        if name not in source or (source is before and source is not newest.outputs):
            return None
        return _number(source[name])

    def _counts(self, value: float) -> bool:
        if self.until.kind == "rule":
            return _RULES[self.until.sign](value, self.until.value)
        best = self._value
        if not math.isnan(value) and (best is None or (value > best if self._larger else value < best)):
            self._value = value
            return False
        return best is not None


@dataclass
class Breakpoint:
    """A condition that is watched until it is removed."""

    number: int
    watch: Watch
    act: Act
    hits: int = 0
    so: bool = False
    """Whether it was so at the last look: it is hit when it becomes so."""


class Watches:
    """All that a run is watched for. While that is nothing, a step costs the look at `any`.

    Args:
        progress, lifecycle: the run's counters, and what is paused.
        note: adds to the journal.
        larger: whether more of a metric, by name, is better.
        world: the processes that are watched for the same; what the main one finds is so.
    """

    def __init__(
        self,
        progress: Progress,
        lifecycle: Lifecycle,
        note: Callable[..., None],
        larger: Callable[[str], bool],
        world: World = ALONE,
    ) -> None:
        self._progress, self._lifecycle, self._note, self._larger = progress, lifecycle, note, larger
        self._world = world
        self._goal: tuple[Watch, Future[Any], str | None] | None = None
        self._breakpoints: dict[int, Breakpoint] = {}
        self._given = 0
        self.any = False
        """Whether anything is waited for."""

    def run_until(self, until: Until, best: Mapping[str, Any] | None, client: str | None) -> Future[Any]:
        """Pause when `until` is reached; the future says so, or that the run ended first, or another goal came."""
        self.forget()
        watch = Watch(until, self._progress, best, self._larger)
        self._goal = watch, Future(), client
        self.any = True
        return self._goal[1]

    def forget(self, *, reached: bool = False) -> None:
        """Let the run go on to nothing any more, and tell whoever waits."""
        goal, self._goal = self._goal, None
        self.any = bool(self._breakpoints)
        if goal is not None:
            goal[1].set_result({"reached": reached, "step": self._progress.step})

    def add(self, until: Until, act: Act, best: Mapping[str, Any] | None) -> int:
        """Watch for `until` from now on; returns the breakpoint's number."""
        if len(self._breakpoints) >= MOST_BREAKPOINTS:
            raise UsageError(f"there are {MOST_BREAKPOINTS} breakpoints already: remove one first")
        self._given += 1
        watch = Watch(until, self._progress, best, self._larger)
        passed = until.kind == "step" or (until.kind == "epoch" and until.value > 0)
        so = passed and watch.reached(self._progress, Newest())
        self._breakpoints[self._given] = Breakpoint(self._given, watch, act, so=so)
        self.any = True
        return self._given

    def remove(self, number: int) -> Until:
        """Take a breakpoint away; returns what it waited for. Raises UsageError for a number that none has."""
        if number not in self._breakpoints:
            known = ", ".join(map(str, self._breakpoints)) or "none"
            raise UsageError(f"there is no breakpoint {number}: there are {known}")
        found = self._breakpoints.pop(number)
        self.any = bool(self._breakpoints) or self._goal is not None
        return found.watch.until

    @property
    def breakpoints(self) -> list[dict[str, Any]]:
        """The breakpoints with number, until, act and hits, as plain data; may be asked for by any thread."""
        return [
            {"number": each.number, "until": str(each.watch.until), "act": each.act, "hits": each.hits}
            for each in list(self._breakpoints.values())
        ]

    def journal(self, event: str) -> None:
        """An entry was added to the journal."""
        if self._goal is not None:
            self._goal[0].journal(event)
        for each in list(self._breakpoints.values()):
            each.watch.journal(event)

    def look(self, newest: Newest, *, may_pause: bool) -> None:
        """A step is finished: journal the breakpoints that are hit, and pause where it is asked for.

        At the run's end there is nothing to pause.
        """
        for each in list(self._breakpoints.values()):
            if self._is_so(each.watch, self._is_hit(each, newest)):
                each.hits += 1
                until = str(each.watch.until)
                if each.act == "pause" and may_pause:
                    self._lifecycle.to(Stage.PAUSED, f"breakpoint {each.number}: {until}")
                self._note("breakpoint", number=each.number, until=until, act=each.act)
        if self._goal is not None and self._is_so(self._goal[0], self._goal[0].reached(self._progress, newest)):
            watch, _, client = self._goal
            if may_pause:
                reason = f"reached {watch.until}"
                self._lifecycle.to(Stage.PAUSED, reason)
                self._note("pause", reason=reason, **({} if client is None else {"client": client}))
            self.forget(reached=True)

    def _is_so(self, watch: Watch, so: bool) -> bool:
        """Whether it is so in the main process, and then in all of them.

        Steps and epochs are the same in all; what a step returned, or the journal says, is not.
        """
        return so if watch.until.kind in ("step", "epoch") else self._world.share(so)

    def _is_hit(self, each: Breakpoint, newest: Newest) -> bool:
        before, each.so = each.so, each.watch.reached(self._progress, newest)
        kind = each.watch.until.kind
        if not each.so:
            return False
        if kind in ("event", "best", "stall") or (kind == "epoch" and not each.watch.until.value):
            each.watch.begin_anew(self._progress)
            each.so = False
            return True
        if kind == "nan":  # a bad step is one, whatever came before it
            each.watch.begin_anew(self._progress)
        return not before


def _number(value: Any) -> float:
    """A scalar that a step returned, which may be a tensor with a graph."""
    return float(value.detach() if isinstance(value, Tensor) else value)
