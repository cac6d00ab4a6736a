"""All curves of a run: of training, epochs, validation and test, and what rewinds have given up."""

from __future__ import annotations

import csv
import io
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError, nearest
from treadle.files import number, text_cell
from treadle.studio.curves.axes import Axes, Axis, Drawn
from treadle.studio.curves.columns import place
from treadle.studio.curves.lines import Line
from treadle.studio.curves.pyramid import Pyramid
from treadle.studio.curves.rows import Rows
from treadle.studio.curves.smoothing import Smoothed
from treadle.studio.curves.spilled import Spill

LOST = "lost"
"""How the keys of curves begin that a rewind has given up."""
STRETCHES = 20
"""Of what was given up, how many stretches are kept, the newest."""
SMOOTHED = 8
"""Smoothed curves that are kept, those that were looked at last."""
KINDS = {0: "NaN", 1: "Infinity", -1: "-Infinity"}


class RunSeries:
    """The values that a run has logged, by "split/name"; "lost/split/name" is what the newest rewind gave up of it.

    "lost/1/split/name" is what the first one gave up, and so on. Not for several threads at once.

    Args:
        spill: whether the values of long curves may go into a file without a name; else all are in memory.

    Attributes:
        axes: where its values are drawn.
        newest: the newest value of each curve.
    """

    def __init__(self, *, spill: bool = False) -> None:
        self.axes = Axes()
        self._spill = Spill() if spill else None
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._rows: dict[str, Rows] = {}
        self._curves: dict[str, Pyramid] = {}
        self._lost: dict[int, dict[str, Pyramid]] = {}
        self._smoothed: OrderedDict[tuple[str, float], Smoothed] = OrderedDict()
        self.newest: dict[str, float] = {}
        self.axes.rewind(-1)
        self.axes.start = None

    @property
    def keys(self) -> list[str]:
        """The curves there are, in the order in which they were first logged, and then those that were given up."""
        lost = {f"{LOST}/{key}": None for stretch in self._lost.values() for key in stretch}
        return [*self._curves, *lost]

    @property
    def lost(self) -> dict[int, tuple[int, int]]:
        """The first and last step of each stretch that was given up, by its number."""
        found = {}
        for which, stretch in self._lost.items():
            ends = [curve.steps()[[0, -1]].tolist() for curve in stretch.values()]
            found[which] = min(end[0] for end in ends), max(end[1] for end in ends)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        curves = [
            *self._curves.values(),
            *self._smoothed.values(),
            *(c for lost in self._lost.values() for c in lost.values()),
        ]
        rows = {id(curve.rows): curve.rows for curve in curves}
        return sum(curve.nbytes for curve in curves) + sum(row.nbytes for row in rows.values())

    # What is logged -----------------------------------------------------------------------------------------------

    def add(self, lines: Iterable[Line]) -> None:
        """Add lines in the order in which they were logged. One that goes back in its split gives up what is after."""
        for split, together in groupby(lines, key=attrgetter("split")):
            group = list(together)
            steps = np.array([line.step for line in group], np.int64)
            back = np.flatnonzero(np.diff(steps) < 0) + 1
            for start, stop in pairwise([0, *back.tolist(), len(group)]):
                self._add_rising(split, steps[start:stop], group[start:stop])

    def _add_rising(self, split: str, steps: NDArray[np.int64], lines: list[Line]) -> None:
        rows = self._rows.get(split)
        if rows is not None and len(rows) and steps[0] < rows.steps.values[-1]:
            self.rewind(int(steps[0]) - 1)
        rows = self._rows.setdefault(split, Rows(self._spill))
        if self.axes.start is None:
            self.axes.start = lines[0].time
        epochs = np.array([line.epoch for line in lines], np.int64)
        for index in (np.flatnonzero(np.diff(epochs, prepend=epochs[0] - 1) > 0)).tolist():
            self.axes.saw(int(steps[index]), int(epochs[index]))
        times = np.nan_to_num(np.array([line.time for line in lines], np.float64), posinf=0.0)
        before = rows.times.values[-1] if len(rows.times) else -math.inf
        first = len(rows)
        rows.steps.extend(steps)
        rows.times.extend(np.maximum(np.maximum.accumulate(times), before))  # a clock may be set back
        for names, count, found in _tables(lines):
            columns = np.ascontiguousarray(found.T)
            at = np.arange(first, first + count)
            first += count
            for name, values in zip(names, columns, strict=True):
                key = f"{split}/{name}"
                curve = self._curves.get(key)
                if curve is None:
                    curve = self._curves[key] = Pyramid(rows, int(at[0]))
                curve.extend(values, at)
                self.newest[key] = float(values[-1])

    def rewind(self, step: int) -> None:
        """The run goes on from `step`: what was logged after it is given up, and kept as what was lost."""
        rows = {id(rows): int(place(rows.steps.values, step, after=True)) for rows in self._rows.values()}
        self._give_up(max(self._lost, default=0) + 1, self._cut(rows))
        self.axes.rewind(step)

    def give_up(self, which: int, lines: Iterable[Line]) -> None:
        """Take note of what rewind number `which` gave up, as it was logged."""
        other = RunSeries()
        other.add(lines)
        self._give_up(which, other._curves)

    def _give_up(self, which: int, stretch: dict[str, Pyramid]) -> None:
        if stretch:
            self._lost[which] = stretch
        for oldest in sorted(self._lost)[:-STRETCHES]:
            del self._lost[oldest]

    @property
    def sizes(self) -> dict[str, int]:
        """How many lines there are of each split."""
        return {split: len(rows) for split, rows in self._rows.items()}

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Go back to when there were so many lines of each split, as if the others had never been logged."""
        self._cut({id(rows): sizes.get(split, 0) for split, rows in self._rows.items()})
        steps = [int(rows.steps.values[-1]) for rows in self._rows.values() if len(rows)]
        self.axes.rewind(max(steps, default=-1))
        if not steps:
            self.axes.start = None

    def _cut(self, counts: Mapping[int, int]) -> dict[str, Pyramid]:
        """Keep so many of the rows; returns what there was in the others, by key."""
        gone: dict[str, Pyramid] = {}
        for key, curve in list(self._curves.items()):
            start = curve.below_row(counts[id(curve.rows)])
            if start < len(curve):
                gone[key] = _copied(curve, start)
                curve.cut(start)
                if start == 0:
                    del self._curves[key], self.newest[key]
                else:
                    self.newest[key] = float(_as_logged(curve, start - 1)[0])
        for rows in self._rows.values():
            rows.cut(counts[id(rows)])
        self._smoothed.clear()
        return gone

    # Looking ------------------------------------------------------------------------------------------------------

    def curve(self, key: str) -> Pyramid:
        """The curve of a key; an empty one for what was never given up. Raises UsageError for one there is not."""
        if key in self._curves:
            return self._curves[key]
        first, _, rest = key.partition("/")
        if first != LOST:
            raise UsageError(f"the run has logged no {key!r}{nearest(key, self._curves)}")
        number, _, tail = rest.partition("/")
        if number.isascii() and number.isdigit() and len(number) < 9:
            return self._lost.get(int(number), {}).get(tail) or Pyramid(Rows())
        newest = (self._lost[which] for which in sorted(self._lost, reverse=True))
        return next((lost[rest] for lost in newest if rest in lost), Pyramid(Rows()))

    def draw(
        self,
        key: str,
        x: Axis = "step",
        low: float | None = None,
        high: float | None = None,
        most: int = 1000,
        *,
        log_x: bool = False,
        smoothing: float = 0.0,
    ) -> Drawn:
        """At most `most` points of a curve from `low` to `high` on an axis of steps, epochs or seconds since the start.

        Raises UsageError for a curve that there is not.
        """
        curve = self.curve(key)
        return self.axes.draw(curve, x, low, high, most, log_x, self._smooth(key, curve, smoothing))

    def _smooth(self, key: str, curve: Pyramid, share: float) -> Pyramid | None:
        if share == 0.0:
            return None
        if key.startswith(f"{LOST}/"):  # few, and other ones after the next rewind
            return Smoothed(curve, share)
        smooth = self._smoothed.pop((key, share), None) or Smoothed(curve, share)
        self._smoothed[key, share] = smooth
        if len(self._smoothed) > SMOOTHED:
            self._smoothed.popitem(last=False)
        return smooth

    def steps_and_values(self, key: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All of a curve; infinities as such."""
        curve = self.curve(key)
        return curve.steps().astype(np.int64), _as_logged(curve, 0)

    def place_in_time(self, steps: NDArray[np.int64], key: str) -> NDArray[np.float64]:
        """When a curve was at each of the steps, by the clock in seconds."""
        curve = self.curve(key)
        return curve.rows.times.values[curve.last_row_at(steps)]

    # A table ------------------------------------------------------------------------------------------------------

    def table(self, keys: Sequence[str], most: int = 10_000) -> str:
        """The newest values of some curves as CSV: step, epoch and time (by the clock), and a column for each curve.

        A row is for each time that something was logged; values of different splits at one step share theirs. Of a
        curve of more than 131,072 values all are given to seven digits, else as they were logged.
        """
        curves = [(key, self.curve(key)) for key in dict.fromkeys(keys)]
        places: dict[tuple[int, int], list[Any]] = {}
        for column, (_, curve) in enumerate(curves):
            start = max(0, len(curve) - most)
            steps = curve.steps(start).tolist()
            odd, kinds = curve.kinds(start, len(curve))
            texts = [str(value) for value in curve.values(start).tolist()]
            if curve.values(start).dtype == np.float32:
                texts = [str(value) for value in curve.values(start)]
            for index, kind in zip((odd - start).tolist(), kinds.tolist(), strict=True):
                texts[index] = KINDS[kind]
            clock = curve.rows.times.values[curve.rows_of(start, len(curve))].tolist()
            for step, together in groupby(zip(steps, texts, clock, strict=True), key=lambda item: item[0]):
                for occurrence, (_, text, when) in enumerate(together):
                    row = places.setdefault((step, occurrence), [when, *[""] * len(curves)])
                    row[column + 1] = text
        order = sorted(places)[-most:]
        epochs = self.axes.epoch(np.array([step for step, _ in order], np.float64)) if order else np.empty(0)
        sheet = io.StringIO()
        write = csv.writer(sheet, lineterminator="\n").writerow
        write(["step", "epoch", "time", *(text_cell(key) for key, _ in curves)])
        for place_, epoch in zip(order, epochs.tolist(), strict=True):
            when, *values = places[place_]
            write([place_[0], f"{epoch:.6g}", f"{when:.3f}", *values])
        return sheet.getvalue()


def _tables(lines: list[Line]) -> Iterable[tuple[list[str], int, NDArray[np.float64]]]:
    """Names, how many lines, and values (lines, names), for each stretch of lines with the same names."""
    for names, together in groupby(lines, key=lambda line: list(line.values)):
        table = [list(line.values.values()) for line in together]
        try:
            found = np.array(table, np.float64).reshape(len(table), len(names))
        except (ValueError, TypeError):
            found = np.array([[number(value) for value in row] for row in table]).reshape(len(table), len(names))
        yield names, len(table), found


def _as_logged(curve: Pyramid, start: int) -> NDArray[np.float64]:
    """The values of a curve from number `start` on, infinities among them."""
    values = np.array(curve.values(start), np.float64)
    odd, kinds = curve.kinds(start, len(curve))
    values[odd - start] = np.array([math.nan, math.inf, -math.inf])[kinds]
    return values


def _copied(curve: Pyramid, start: int) -> Pyramid:
    """The values of a curve from number `start` on, on rows of its own."""
    clock = curve.rows.times.values[curve.rows_of(start, len(curve))]
    return Pyramid.of(curve.steps(start), _as_logged(curve, start), clock)
