"""Where the values of a run are drawn: by step, by epoch, by time, on a linear or logarithmic axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.studio.curves.buckets import Points
from treadle.studio.curves.columns import integers, place
from treadle.studio.curves.pyramid import Pyramid

Axis = Literal["step", "epoch", "time"]


@dataclass(frozen=True)
class Drawn:
    """Points of a curve where they are drawn: `x` and the marks' `marks_x` are steps, epochs or seconds."""

    x: NDArray[np.float64]
    points: Points
    marks_x: NDArray[np.float64]
    total: int


class Axes:
    """The axes of a run.

    Attributes:
        start: when the run logged its first value, by the clock in seconds; None where it has logged none.
        batches: steps in an epoch, where that is known before the first has ended.
    """

    def __init__(self) -> None:
        self.start: float | None = None
        self.batches: int | None = None
        self._at, self._finished = integers(), integers()  # steps at which so many epochs were finished
        self.rewind(-1)

    def saw(self, step: int, epoch: int) -> None:
        """Take note that so many epochs are finished at a step."""
        if epoch > self._finished.values[-1]:
            self._at.extend([max(step, int(self._at.values[-1]))])
            self._finished.extend([epoch])

    def rewind(self, step: int) -> None:
        """Forget what is known of later steps."""
        known = int(place(self._at.values, step, after=True))
        self._at.cut(known)
        self._finished.cut(known)
        if known == 0:
            self._at.extend([0])
            self._finished.extend([0])

    def draw(
        self,
        curve: Pyramid,
        x: Axis,
        low: float | None,
        high: float | None,
        most: int,
        log_x: bool = False,
        smooth: Pyramid | None = None,
    ) -> Drawn:
        """At most `most` points of a curve from `low` to `high`, or of `smooth`, which has the same steps.

        Raises UsageError for an end that is no finite number.
        """
        for end in (low, high):
            if end is not None and not math.isfinite(end):
                raise UsageError(f"a curve was asked for at {end}: give a finite number")
        shown = curve if smooth is None else smooth
        if len(curve) == 0:
            found = shown.points()
        else:
            begin = None if low is None else int(self._steps_at(curve, x, np.array([low]))[0])
            end = None if high is None else int(self._steps_at(curve, x, np.array([high]), after=True)[0]) - 1
            edges = None
            if log_x or x == "time":
                edges = self._edges(curve, x, low, high, most, log_x)
                if edges is None:
                    begin, end, most = 0, -1, 2
                elif begin is None or begin < edges[0]:
                    begin = int(edges[0])
            found = shown.points(begin, end, most, edges)
        return Drawn(self._x(curve, x, found.steps), found, self._x(curve, x, found.marks[:, 0]), len(curve))

    @property
    def _began(self) -> float:
        return self.start or 0.0

    @property
    def _pace(self) -> float:
        """Epochs in a step, after the last that has ended; 0 where that is not known."""
        if len(self._at) > 1:
            epochs, steps = np.diff(self._finished.values[-2:]), np.diff(self._at.values[-2:])
            return float(epochs[0]) / max(float(steps[0]), 1.0)
        return 1 / self.batches if self.batches else 0.0

    def epoch(self, steps: NDArray[Any]) -> NDArray[np.float64]:
        """Epochs finished by the steps, with what part of the next is done."""
        at, epochs = self._at.values, self._finished.values
        beyond = epochs[-1] + np.clip((steps - at[-1]) * self._pace, 0.0, 1.0)
        return np.where(steps > at[-1], beyond, np.interp(steps, at, epochs))

    def _step_of(self, epochs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The steps, not rounded, by which so many epochs are finished."""
        at, finished = self._at.values, self._finished.values
        beyond = at[-1] + (epochs - finished[-1]) / (self._pace or 1e-9)
        return np.where(epochs > finished[-1], np.minimum(beyond, 2.0**53), np.interp(epochs, finished, at))

    def _x(self, curve: Pyramid, x: Axis, steps: NDArray[Any]) -> NDArray[np.float64]:
        if x == "step" or len(steps) == 0:
            return steps.astype(np.float64)
        if x == "epoch":
            return self.epoch(steps)
        return curve.rows.times.values[curve.last_row_at(steps)] - self._began

    def _steps_at(
        self, curve: Pyramid, x: Axis, places: NDArray[np.floating[Any]], *, after: bool = False
    ) -> NDArray[np.int64]:
        """The first step that is not before each of the places on an axis, or with `after` the first after it."""
        if x == "time":
            clock = curve.times()
            steps, at = curve.steps(), np.searchsorted(clock, places + self._began, "right" if after else "left")
            return np.where(at < len(steps), steps[np.minimum(at, len(steps) - 1)], int(steps[-1]) + 1).astype(np.int64)
        found = self._step_of(places) if x == "epoch" else places.clip(-(2.0**53), 2.0**53)
        return (np.floor(found) + 1 if after else np.ceil(found)).astype(np.int64)

    def _edges(
        self, curve: Pyramid, x: Axis, low: float | None, high: float | None, most: int, log_x: bool
    ) -> NDArray[np.int64] | None:
        """Where the buckets of an axis begin, as steps: on a grid that stays where it is when the view moves.

        None where there is nothing to draw: what is not after 0 has no place on a logarithmic axis.
        """
        if x == "time":
            clock = curve.times()
            first = int(np.searchsorted(clock, self._began, "right")) if log_x else 0
            inside = clock[[min(first, len(clock) - 1), -1]] - self._began
        else:
            first = curve.find(0, after=True) if log_x else 0
            inside = self._x(curve, x, curve.steps()[[min(first, len(curve) - 1), -1]])
        left = float(inside[0]) if low is None or (log_x and low <= 0) else max(low, float(inside[0]))
        right = float(inside[1]) if high is None else min(high, float(inside[1]))
        if right < left or (log_x and left <= 0):
            return None
        if log_x:
            left, right = math.log2(left), math.log2(right)
        width = 2.0 ** math.ceil(math.log2(max((right - left) / max(most - 3, 1), 1e-9)))
        while math.floor(right / width) - math.floor(left / width) + 1 > most:
            width *= 2
        grid = np.arange(math.floor(left / width), math.floor(right / width) + 2) * width
        edges = self._steps_at(curve, x, 2.0**grid if log_x else grid)
        return np.unique(np.append(edges, edges[0] + 1)) if edges[0] == edges[-1] else np.unique(edges)
