"""Nearest neighbours of points in space, exactly: a k-d tree over the points themselves, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.kernels.compiling import compiled

LEAF = 8
"""As many points, or fewer, are compared one by one."""


def neighbour_distances(points: NDArray[np.float64], count: int = 3) -> NDArray[np.float64]:
    """Squared distances (n, count) float64 from each of `points` (n, 3) to the nearest others, in rising order.

    Where there are fewer than `count` others, the rest of a row is inf. Points at the same place are neighbours at
    distance 0.

    Raises:
        UsageError: points of another shape, or that are not finite.
    """
    points = np.ascontiguousarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise UsageError(f"neighbours: expected finite points (n, 3), got {points.shape}")
    if count < 1:
        raise UsageError(f"neighbours: count is {count}: expected at least 1")
    found = np.full((len(points), count), np.inf)
    if len(points):
        order, axes = np.arange(len(points)), np.zeros(len(points), np.int8)
        _build(points, order, axes)
        _query(points[order], axes, order, found)
    return found


@compiled()
def _build(points: Any, order: Any, axes: Any) -> None:
    """Put `order` so that the middle of each range splits it along its longest side, `axes` there; down to leaves."""
    waiting = [(0, len(order))]
    while waiting:
        low, high = waiting.pop()
        if high - low <= LEAF:
            continue
        axis, longest = 0, -1.0
        for k in range(3):
            least, most = np.inf, -np.inf
            for i in range(low, high):
                value = points[order[i], k]
                least, most = min(least, value), max(most, value)
            if most - least > longest:
                axis, longest = k, most - least
        keys = np.empty(high - low)
        for i in range(low, high):
            keys[i - low] = points[order[i], axis]
        order[low:high] = order[low:high][np.argsort(keys, kind="mergesort")]
        middle = (low + high) // 2
        axes[middle] = axis
        waiting.append((low, middle))
        waiting.append((middle + 1, high))


@compiled()
def _query(points: Any, axes: Any, order: Any, found: Any) -> None:
    count = found.shape[1]
    lows, highs, gaps = np.empty(96, np.int64), np.empty(96, np.int64), np.empty(96)
    for me in range(len(points)):
        x, y, z = points[me, 0], points[me, 1], points[me, 2]
        best = np.full(count, np.inf)
        lows[0], highs[0], gaps[0], depth = 0, len(points), 0.0, 1
        while depth:
            depth -= 1
            low, high, gap = lows[depth], highs[depth], gaps[depth]
            if gap >= best[count - 1]:
                continue
            first, last, middle = low, high, -1
            if high - low > LEAF:
                middle = (low + high) // 2
                first, last = middle, middle + 1
            for i in range(first, last):
                if i == me:
                    continue
                d = (points[i, 0] - x) ** 2 + (points[i, 1] - y) ** 2 + (points[i, 2] - z) ** 2
                place = count
                while place > 0 and d < best[place - 1]:
                    place -= 1
                for k in range(count - 1, place, -1):
                    best[k] = best[k - 1]
                if place < count:
                    best[place] = d
            if middle < 0:
                continue
            away = points[me, axes[middle]] - points[middle, axes[middle]]
            below = (low, middle)
            above = (middle + 1, high)
            near, far = (below, above) if away < 0 else (above, below)
            # The nearer side is looked at first: it lies on top.
            lows[depth], highs[depth], gaps[depth] = far[0], far[1], away * away
            lows[depth + 1], highs[depth + 1], gaps[depth + 1] = near[0], near[1], 0.0
            depth += 2
        found[order[me]] = best
