"""The exponential moving average of a curve, without the pull of its first values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from treadle.studio.curves.buckets import Floats, Points, Steps
from treadle.studio.curves.pyramid import Pyramid

KEPT = 4096
"""Values between two places at which a moving average is remembered."""


@dataclass
class Average:
    """An average on its way through the values of a curve.

    After values v1 ... vn it is sum(b^(n-i) vi) / sum(b^(n-i)), which is right from the first value on. Values that are
    no finite number leave it as it is.

    Attributes:
        share: b, of the average so far against a new value; 0 to 0.9999.
        mean: the average so far.
        weight: sum(b^(n-i)).
    """

    share: float
    mean: float = 0.0
    weight: float = 0.0

    def of(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """The average after each of `values`, which come next; NaN where a value is no finite number."""
        finite = np.isfinite(values)
        result = np.full(len(values), np.nan)
        good = values[finite].astype(np.float64)
        if self.share == 0.0:
            result[finite] = good
        elif len(good):
            largest = max(float(np.abs(good).max()), abs(self.mean)) or 1.0  # so that no sum of large values overflows
            totals = self._sums(good / largest, self.mean / largest * self.weight)
            weights = self._sums(np.ones(len(good)), self.weight)
            means = totals / weights * largest
            self.mean, self.weight = float(means[-1]), float(weights[-1])
            result[finite] = means
        return result

    def _sums(self, values: NDArray[np.float64], before: float) -> NDArray[np.float64]:
        """s[i] = b s[i - 1] + values[i], with s[-1] = before.

        Within a block it is a cumulative sum of values that are scaled up as others would be scaled down; the blocks
        are so short that this loses nothing.
        """
        share = self.share
        block = max(1, min(4096, int(44 / -math.log(share))))  # scaled up by 2^64 at most
        powers = share ** np.arange(block)
        count = -(-len(values) // block)
        padded = np.zeros((count, block))
        padded.reshape(-1)[: len(values)] = values
        sums = np.cumsum(padded / powers, axis=1) * powers
        carried = np.empty(count)
        carry, through = before, share**block
        for index, last in enumerate(sums[:, -1].tolist()):
            carried[index] = carry
            carry = carry * through + last
        sums += carried[:, None] * (powers * share)
        return sums.reshape(-1)[: len(values)]


class Smoothed(Pyramid):
    """The exponential moving average of a curve, as a curve: smoothed first, then drawn in few points.

    Its values are computed when they are looked at; only the levels are kept.

    Args:
        curve: what is averaged.
        share: of the average so far against a new value, 0 to 0.9999.
    """

    base = 64

    def __init__(self, curve: Pyramid, share: float) -> None:
        super().__init__(curve.rows, curve.first)
        self.curve, self._share = curve, share
        self._averages: list[Average] = []  # before each KEPT values

    def __len__(self) -> int:
        return len(self.curve)

    def find(self, step: int, *, after: bool = False) -> int:
        """As the curve does."""
        return self.curve.find(step, after=after)

    def last_row_at(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """As the curve does."""
        return self.curve.last_row_at(steps)

    def steps(self, start: int = 0, stop: int | None = None) -> Steps:
        """As the curve's are."""
        return self.curve.steps(start, stop)

    def kinds(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """As the curve's are: what is no finite number is not averaged, and stays a mark."""
        return self.curve.kinds(start, stop)

    def values(self, start: int = 0, stop: int | None = None) -> Floats:
        """The averages after the values from number `start` to `stop`, float64."""
        stop = len(self) if stop is None else min(stop, len(self))
        place = min(start // KEPT, max(len(self._averages) - 1, 0))
        average = self._averages[place] if self._averages else Average(self._share)
        average = replace(average)
        pieces = []
        for begin in range(place * KEPT, max(stop, place * KEPT + 1), KEPT):
            if begin // KEPT == len(self._averages):
                self._averages.append(replace(average))
            pieces.append(average.of(self.curve.values(begin, min(begin + KEPT, stop))))
        return np.concatenate(pieces)[start - place * KEPT :]

    def _finite(self, start: int, stop: int) -> tuple[Points, NDArray[np.int64] | None]:
        values, steps = self.values(start, stop), self.steps(start, stop)
        which = np.flatnonzero(np.isfinite(values))
        kept = values[which]
        return Points(steps[which], kept, kept, kept), which
