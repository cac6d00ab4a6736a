"""The steps and times that the values of curves were logged at."""

from __future__ import annotations

from treadle.studio.curves.columns import integers, times
from treadle.studio.curves.spilled import Spill


class Rows:
    """The steps of values that were logged together, and when that was, in seconds: rising, or equal.

    Args:
        spill: where the values of long curves go; None keeps them in memory.
    """

    def __init__(self, spill: Spill | None = None) -> None:
        self.steps, self.times, self.spill = integers(), times(), spill

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.steps.nbytes + self.times.nbytes

    def cut(self, count: int) -> None:
        """Keep the first `count`."""
        self.steps.cut(count)
        self.times.cut(count)
