"""A curve of any length, drawn in few points: the least, the greatest and the last value of buckets of steps.

Buckets are aligned to step numbers, so nothing flickers when somebody zooms or values arrive, and each value is within
the least and greatest of its bucket, so no spike vanishes. What is no finite number is a mark and no value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.studio.curves.buckets import Floats, Level, Points, Steps, joined, nothing, reduced
from treadle.studio.curves.columns import Column, integers, place, place_one
from treadle.studio.curves.rows import Rows
from treadle.studio.curves.spilled import Numbers

DENSE = 4096
"""Values from which a curve has levels; fewer are looked at one by one."""
CHUNK = 1 << 16
"""Values that are looked at together, so that building takes little memory."""
FINER = 8
"""Parts into which a bucket of any place is divided to find its edges: they are off by as little."""
GROUPS = 64
"""Stretches of buckets of one size that are looked at one by one."""


class Pyramid:
    """The values of a curve, and levels of ever larger buckets over them, made as they are asked for.

    Args:
        rows: the steps; curves that are logged together share them.
        first: the row of the first value; each further one is of the next row unless `extend` says otherwise.

    Example:
        pyramid = Pyramid.of([1, 2, 3], [0.5, 0.4, 9.0])
        points = pyramid.points(low=0, high=100, most=1000)
    """

    def __init__(self, rows: Rows, first: int = 0) -> None:
        self.rows, self.first = rows, first
        self._values = Numbers(rows.spill)
        self._index: Column | None = None  # of the rows, where some have no value
        self._odd, self._kinds = integers(), Column(np.int8, np.int8)
        self._levels: list[Level] = []
        self._planned = 0

    @classmethod
    def of(cls, steps: Any, values: Any, times: Any = None) -> Pyramid:
        """A curve with these values at these steps, which rise."""
        rows = Rows()
        rows.steps.extend(np.asarray(steps, np.int64))
        rows.times.extend(np.zeros(len(rows)) if times is None else np.asarray(times, np.float64))
        pyramid = cls(rows)
        pyramid.extend(np.asarray(values, np.float64))
        return pyramid

    def __len__(self) -> int:
        return len(self._values)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, those of the rows not counted."""
        columns = [self._odd, self._kinds, *([] if self._index is None else [self._index])]
        levels = sum(level.nbytes for level in self._levels)
        return self._values.nbytes + sum(column.nbytes for column in columns) + levels

    def extend(self, values: NDArray[np.float64], rows: NDArray[np.int64] | None = None) -> None:
        """Add values, of the next rows or of the `rows` that are named."""
        count = len(self)
        if rows is not None and self._index is None:
            expected = self.first + count
            if len(rows) and not (rows[0] == expected and rows[-1] == expected + len(rows) - 1):
                self._index = integers()
                self._index.extend(np.arange(self.first, expected))
        if self._index is not None:
            start = int(self._index.values[-1]) + 1 if len(self._index) else self.first
            self._index.extend(np.arange(start, start + len(values)) if rows is None else rows)
        odd = np.flatnonzero(~np.isfinite(values))
        if len(odd):
            self._odd.extend(odd + count)
            self._kinds.extend(np.nan_to_num(np.sign(values[odd]), nan=0.0).astype(np.int8))
            values = np.where(np.isfinite(values), values, np.nan)
        self._values.extend(values)

    def cut(self, count: int) -> None:
        """Keep the first `count` values."""
        if count < len(self):
            self._values.cut(count)
            if self._index is not None:
                self._index.cut(count)
            odd = place_one(self._odd.values, count)
            self._odd.cut(odd)
            self._kinds.cut(odd)
            self._levels, self._planned = [], 0

    def below_row(self, row: int) -> int:
        """How many values are of rows before `row`."""
        if self._index is not None:
            return place_one(self._index.values, row)
        return min(max(row - self.first, 0), len(self))

    def rows_of(self, start: int, stop: int) -> NDArray[np.int64]:
        """The rows of the values from number `start` to `stop`."""
        if self._index is not None:
            return self._index.values[start:stop].astype(np.int64)
        return np.arange(self.first + start, self.first + stop)

    def steps(self, start: int = 0, stop: int | None = None) -> Steps:
        """The steps of the values from number `start` to `stop`, not a copy where that can be."""
        stop = len(self) if stop is None else stop
        steps = self.rows.steps.values
        if self._index is not None:
            return steps[self._index.values[start:stop]]
        return steps[self.first + start : self.first + stop]

    def times(self) -> NDArray[np.float64]:
        """When the values were logged, by the clock in seconds; not a copy where that can be."""
        times = self.rows.times.values
        if self._index is not None:
            return times[self._index.values]
        return times[self.first : self.first + len(self)]

    def values(self, start: int = 0, stop: int | None = None) -> Floats:
        """The values from number `start` to `stop`, not a copy where that can be; NaN for what is no finite number."""
        return self._values.slice(start, stop)

    def kinds(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Which values from number `start` to `stop` are no finite number, and their kinds, as in `Points.marks`."""
        inside = slice(place_one(self._odd.values, start), place_one(self._odd.values, stop))
        return self._odd.values[inside].astype(np.int64), self._kinds.values[inside]

    def find(self, step: int, *, after: bool = False) -> int:
        """How many values are before `step`, or with `after` not after it."""
        return self.below_row(place_one(self.rows.steps.values, step, after=after))

    def last_row_at(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of the last value that is not after each of the steps; there has to be one."""
        rows = place(self.rows.steps.values, steps, after=True) - 1
        if self._index is not None:
            return self._index.values[place(self._index.values, rows, after=True) - 1].astype(np.int64)
        return np.minimum(rows, self.first + len(self) - 1)

    # Looking ------------------------------------------------------------------------------------------------------

    def points(
        self, low: float | None = None, high: float | None = None, most: int = 1000, edges: Steps | None = None
    ) -> Points:
        """At most `most` points (2 or more) of the steps from `low` to `high`.

        What overlaps the range is there as a whole, and where there is room one more point on either side, so that a
        line leads out of the picture.

        Args:
            low, high: None is the first and the last step.
            most: how many points.
            edges: (n,) int64, rising: where buckets begin and end; None makes all of them as wide as the least power of
                two that will do. The buckets of an axis that is not linear are off by an eighth of their width.
        """
        count = len(self)
        if count == 0:
            return nothing()
        first, end = int(self.steps(0, 1)[0]), int(self.steps(count - 1, count)[0])
        left, right = max(_whole(low, first), first), min(_whole(high, end), end)
        start, stop = self.find(left), self.find(right, after=True)
        room = 1 if most >= 16 else 0
        around = max(0, start - room), min(count, stop + room)
        if left > right and not room:
            return nothing()
        if around[1] - around[0] <= most:
            return self._each(*around)
        self._refresh()
        if edges is not None:
            return self._between(np.unique(edges.astype(np.int64)), start, stop)
        shift = max(0, ((right - left) // most).bit_length() - 1)
        while (right >> shift) - (left >> shift) + 1 + 2 * room > most:
            shift += 1
        begin, close = ((left >> shift) - room) << shift, ((right >> shift) + 1 + room) << shift
        level = next((level for level in reversed(self._levels) if level.shift <= shift), None)
        found = self._within(level, begin, close)
        if level is None or level.shift < shift:
            keys = found.steps >> shift
            found = reduced(found, np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))))
        return self._finished(found, start, stop, shift)

    def _each(self, start: int, stop: int) -> Points:
        odd, kinds = self.kinds(start, stop)
        steps, values = self.steps(start, stop).astype(np.int64), self.values(start, stop).astype(np.float64)
        marks = np.stack([steps[odd - start], kinds.astype(np.int64)], 1)
        if len(odd):
            finite = np.isfinite(values)
            steps, values = steps[finite], values[finite]
        return Points(steps, values, values, values, True, marks)

    def _between(self, edges: Steps, start: int, stop: int) -> Points:
        """A point for each bucket from one of the `edges` to the next."""
        shifts = np.array([level.shift for level in self._levels], np.int64)
        width = np.maximum(np.diff(edges), 1)
        finest = np.log2(width / FINER)
        size = np.searchsorted(shifts, finest, "right")  # 0: the values themselves
        at_edge = np.maximum(np.append(size, size[-1]), np.append(size[0], size))
        shift = np.append(0, shifts)[at_edge]
        end = -((-int(edges[-1])) >> int(shift[-1])) << int(shift[-1])
        edges = np.unique(np.append(np.maximum.accumulate((edges[:-1] >> shift[:-1]) << shift[:-1]), end))
        if len(edges) < 2:
            edges = np.array([edges[0], edges[0] + 1])
        # What an edge is a multiple of says which levels have it; neighbours of the same level are found together.
        usable = np.zeros(len(edges), np.int64)
        for number, bits in enumerate(shifts.tolist(), 1):
            usable[(edges & ((1 << bits) - 1)) == 0] = number
        width = np.diff(edges)
        fitting = np.searchsorted(shifts, np.log2(np.maximum(width, 1)), "right")
        chosen = np.minimum(np.minimum(usable[:-1], usable[1:]), fitting)
        cuts = np.flatnonzero(np.diff(chosen)) + 1
        if len(cuts) > GROUPS:
            cuts = np.arange(GROUPS, len(chosen), -(-len(chosen) // GROUPS))
        pieces = []
        for group in np.split(np.arange(len(chosen)), cuts):
            number = int(chosen[group].min())
            borders = edges[group[0] : group[-1] + 2]
            found = self._within(self._levels[number - 1] if number else None, int(borders[0]), int(borders[-1]))
            places = place(found.steps, borders)
            starts = places[:-1][np.diff(places) > 0]
            if len(starts):
                pieces.append(reduced(found, starts))
        whole = joined(pieces)
        return self._finished(whole, start, stop, 0, edges)

    def _within(self, level: Level | None, begin: int, close: int) -> Points:
        """What a level, or None for the values themselves, has from step `begin` to before `close`."""
        if level is not None:
            return level.between(begin, close)
        return self._finite(self.find(begin), self.find(close))[0]

    def _finite(self, start: int, stop: int) -> tuple[Points, NDArray[np.int64] | None]:
        """The finite values from number `start` to `stop`, and which these are, where not all."""
        steps, values = self.steps(start, stop), self.values(start, stop)
        which = None
        if len(self._odd) and len(self.kinds(start, stop)[0]):
            which = np.flatnonzero(np.isfinite(values))
            steps, values = steps[which], values[which]
        return Points(steps, values, values, values), which

    def _finished(self, found: Points, start: int, stop: int, shift: int, edges: Steps | None = None) -> Points:
        """The points as they are given away, with the marks of the values from number `start` to `stop`."""
        odd, kinds = self.kinds(start, stop)
        marks = np.empty((0, 2), np.int64)
        if len(odd):
            at = self.steps()[odd].astype(np.int64)
            bucket = place(edges, at, after=True) if edges is not None else at >> shift
            _, where = np.unique(bucket * 4 + kinds + 1, return_index=True)
            where.sort()
            marks = np.stack([at[where], kinds[where].astype(np.int64)], 1)
        low, high, last = (part.astype(np.float64) for part in (found.low, found.high, found.last))
        return Points(found.steps.astype(np.int64), low, high, last, marks=marks)

    # Levels -------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Let the levels have what has come since the last time."""
        count = len(self)
        if count < DENSE or (self._levels and self._levels[0].seen == count):
            return
        if count >= 2 * self._planned:
            self._plan(count)
        lowest = self._levels[0]
        while lowest.seen < count:
            stop = min(count, lowest.seen + CHUNK)
            found, which = self._finite(lowest.open, stop)
            lowest.take(found, lowest.open, which)
            lowest.seen = stop
            if len(found) == 0:
                lowest.open = stop
        for lower, level in zip(self._levels, self._levels[1:], strict=False):
            level.take(lower.after(level.open), level.open)

    def _plan(self, count: int) -> None:
        """Which buckets there are: the least has some `BASE` values, each further one is four times as wide."""
        span = int(self.steps(count - 1, count)[0]) - int(self.steps(0, 1)[0]) + 1
        least = max(0, math.ceil(math.log2(self.base * span / count)))
        most = max(least, span.bit_length() - 5)
        shifts = list(range(least, most + 1, 2))
        if not self._levels or self._levels[0].shift != least:
            self._levels = []
        self._levels += [Level(shift) for shift in shifts[len(self._levels) :]]
        self._planned = count

    base = 32
    """Values in a bucket of the finest level, at the least and on average."""


def _whole(step: float | None, otherwise: int) -> int:
    """A step that was asked for as a whole number that leaves nothing out."""
    if step is None:
        return otherwise
    if not math.isfinite(step):
        raise UsageError(f"a curve was asked for at {step}: give a finite number")
    return int(max(-(2**53), min(step, 2**53)))
