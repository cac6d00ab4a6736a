"""Which voxels lines go through: all of them, not just those that hold a point.

A point on the border of two voxels belongs to the upper one, as `floor` says; every voxel that a segment crosses
between its two points is met where the segment enters it (Amanatides and Woo, 1987). A compiled loop does it
(`traversal_loops`); `traversal_reference` says the same in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np


def traverse(points: np.ndarray, offsets: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of each line, each once, in the order in which they are met.

    Args:
        points: (p, 3), in voxel space with corner origin; finite.
        offsets: (n + 1,) int64: line k is `points[offsets[k]:offsets[k + 1]]`.
        shape: (x, y, z) of the volume; what lies outside of it is left out.

    Returns:
        Voxels (v,) int64, as indices of the flat volume, and offsets (n + 1,) int64 into them.

    Raises:
        ValueError: shapes that do not fit each other, or points that are not finite.
    """
    points, offsets = np.ascontiguousarray(points, np.float64), np.ascontiguousarray(offsets, np.int64)
    if points.ndim != 2 or points.shape[1] != 3 or offsets[-1] != len(points):
        raise ValueError("points must have the shape (p, 3), and offsets must end with p")
    if not np.isfinite(points).all():
        raise ValueError("points must be finite")
    sizes = np.asarray(shape, np.int64)
    count, fill = _kernels()
    stamps = np.zeros(int(sizes.prod()), np.int32)
    found = np.zeros(len(offsets), np.int64)
    count(points, offsets, sizes, stamps, found)
    np.cumsum(found, out=found)
    voxels = np.empty(found[-1], np.int64)
    stamps[:] = 0
    fill(points, offsets, sizes, stamps, found, voxels)
    return voxels, found


@lru_cache
def _kernels() -> tuple[Any, Any]:
    """Compiled at the first call, and kept on disk: importing this module costs nothing."""
    from treadle.kernels.traversal_loops import count, fill

    return count, fill
