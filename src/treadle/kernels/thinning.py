"""Leaving out points of lines that lie near the line through the others (compression, as Presseau et al., 2015, do it).

From a point that is kept, the next one kept is the farthest such that all points between lie within a tolerance of the
segment, the segment is no longer than a limit, and no nearer one has failed already. On the CPU a compiled loop does
it (`thinning_loops`); `thinning_reference` says the same in NumPy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from treadle.kernels import threads


def thin(points: np.ndarray, offsets: np.ndarray, tolerance: float, longest: float = 10.0) -> np.ndarray:
    """Which points of lines to keep; first and last ones always are.

    Args:
        points: (p, 3) float64.
        offsets: (n + 1,) int64: line k is `points[offsets[k]:offsets[k + 1]]`.
        tolerance: how far from its segment a point that is left out may lie.
        longest: the longest segment between two points that are kept, where there are points between.

    Returns:
        (p,) bool.
    """
    points, offsets = np.ascontiguousarray(points, np.float64), np.ascontiguousarray(offsets, np.int64)
    if points.ndim != 2 or points.shape[1] != 3 or offsets[-1] != len(points):
        raise ValueError("points must have the shape (p, 3), and offsets must end with p")
    keep = np.zeros(len(points), np.uint8)
    lines = len(offsets) - 1
    parts = threads.parts_for(max(1, lines // 64))
    threads.spread(_kernel(), parts, points, offsets, float(tolerance), float(longest), keep)
    return keep.astype(bool)


@lru_cache
def _kernel() -> Any:
    """Compiled at the first call, and kept on disk: importing this module costs nothing."""
    from treadle.kernels.thinning_loops import thin as compiled

    return compiled
