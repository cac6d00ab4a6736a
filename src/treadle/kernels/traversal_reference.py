"""`traversal` in NumPy, segment by segment: the borders that are crossed, and the voxels between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def traverse_reference(points: np.ndarray, offsets: np.ndarray, shape: Sequence[int]) -> list[set[tuple[int, ...]]]:
    """The voxels of each line as a set; see `traversal.traverse`."""
    found = []
    for begin, end in itertools.pairwise(offsets.tolist()):
        line = np.asarray(points[begin:end], np.float64)
        met = {tuple(map(int, voxel)) for voxel in np.floor(line)}
        for first, last in itertools.pairwise(line):
            met |= _between(first, last)
        found.append({voxel for voxel in met if all(0 <= i < size for i, size in zip(voxel, shape, strict=True))})
    return found


def _between(first: np.ndarray, last: np.ndarray) -> set[tuple[int, ...]]:
    """The voxels in which a part of the segment lies: each at the middle between two crossings of borders."""
    crossings = {0.0, 1.0}
    for start, end in zip(first, last, strict=True):
        low, high = sorted((start, end))
        for border in range(int(np.ceil(low)), int(np.floor(high)) + 1):
            if start != end:
                crossings.add(float((border - start) / (end - start)))
    inside = sorted(t for t in crossings if 0 <= t <= 1)
    middles = [first + (a + b) / 2 * (last - first) for a, b in itertools.pairwise(inside) if b - a > 1e-12]
    return {tuple(map(int, np.floor(middle))) for middle in middles}
