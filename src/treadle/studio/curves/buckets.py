"""What a curve is drawn from: points that stand for the values of a bucket of steps, and levels of such buckets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.studio.curves.columns import integers, numbers, place_one

Floats = NDArray[np.floating[Any]]
Steps = NDArray[np.signedinteger[Any]]
LEVEL_EXACT = 1 << 12
"""Buckets of a level that are kept in double precision."""


@dataclass(frozen=True)
class Points:
    """What is drawn of a curve: a point for each bucket with a finite value in it, in the order of steps.

    Attributes:
        steps: (n,) that of the bucket's last finite value.
        low, high, last: (n,): the least, the greatest and the last finite value of the bucket.
        exact: whether every value is a point of its own.
        marks: (m, 2) int64: step and kind of values that are no finite number: 0 is NaN, 1 and -1 the infinities; of
            those of a kind in a bucket one.
    """

    steps: Steps
    low: Floats
    high: Floats
    last: Floats
    exact: bool = False
    marks: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))

    def __len__(self) -> int:
        return len(self.steps)


class Level:
    """Buckets of 2^shift steps, in which there is a finite value: of the steps, and of what was least, greatest, last.

    The last one may grow yet: `open` is where it begins in what the level is made from.
    """

    def __init__(self, shift: int) -> None:
        self.shift = shift
        self.steps = integers()
        self.low, self.high, self.last = numbers(LEVEL_EXACT), numbers(LEVEL_EXACT), numbers(LEVEL_EXACT)
        self.open = self.seen = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(column.nbytes for column in (self.steps, self.low, self.high, self.last))

    def take(self, found: Points, offset: int, which: NDArray[np.int64] | None = None) -> None:
        """Make buckets of what is found below from number `offset` on, `which` of it where not all is there."""
        if len(found) == 0:
            return
        columns = (self.steps, self.low, self.high, self.last)
        if len(self.steps):
            for column in columns:
                column.cut(len(column) - 1)
        keys = found.steps >> self.shift
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        made = reduced(found, starts)
        for column, values in zip(columns, (made.steps, made.low, made.high, made.last), strict=True):
            column.extend(values)
        self.open = offset + int(starts[-1] if which is None else which[starts[-1]])

    def after(self, number: int) -> Points:
        """The buckets from number `number` on."""
        return self._slice(number, len(self.steps))

    def between(self, begin: int, close: int) -> Points:
        """The buckets of the steps from `begin` to before `close`."""
        steps = self.steps.values
        return self._slice(place_one(steps, begin), place_one(steps, close))

    def _slice(self, start: int, stop: int) -> Points:
        low, high, last = (column.values[start:stop] for column in (self.low, self.high, self.last))
        return Points(self.steps.values[start:stop], low, high, last)


def reduced(found: Points, starts: NDArray[np.int64]) -> Points:
    """One point for each stretch of points that begins at one of `starts` and ends at the next."""
    if len(found) == 0:
        return found
    ends = np.append(starts[1:], len(found)) - 1
    return Points(
        found.steps[ends],
        np.minimum.reduceat(found.low, starts),
        np.maximum.reduceat(found.high, starts),
        found.last[ends],
    )


def joined(pieces: list[Points]) -> Points:
    """The points of all pieces, one after the other."""
    if not pieces:
        return nothing()
    steps = np.concatenate([piece.steps for piece in pieces])
    low, high = np.concatenate([piece.low for piece in pieces]), np.concatenate([piece.high for piece in pieces])
    return Points(steps, low, high, np.concatenate([piece.last for piece in pieces]))


def nothing() -> Points:
    """No point at all."""
    empty = np.empty(0)
    return Points(np.empty(0, np.int64), empty, empty, empty, True)
