"""The compiled loops of `traversal`."""

# mypy: disable-error-code="arg-type"
from __future__ import annotations

import math
from typing import Any

from treadle.kernels.compiling import compiled


@compiled()
def _segment(
    points: Any, first: int, last: int, sizes: Any, stamps: Any, stamp: int, met: int, voxels: Any, write: int
) -> int:
    """Meet the voxels from one point to another; returns how many have been met by now."""
    px, py, pz = points[first, 0], points[first, 1], points[first, 2]
    dx, dy, dz = points[last, 0] - px, points[last, 1] - py, points[last, 2] - pz
    x, y, z = math.floor(px), math.floor(py), math.floor(pz)
    end_x, end_y, end_z = math.floor(points[last, 0]), math.floor(points[last, 1]), math.floor(points[last, 2])
    while True:
        if 0 <= x < sizes[0] and 0 <= y < sizes[1] and 0 <= z < sizes[2]:
            voxel = (x * sizes[1] + y) * sizes[2] + z
            if stamps[voxel] != stamp:
                stamps[voxel] = stamp
                if write == 1:
                    voxels[met] = voxel
                met += 1
        # How far along the segment the next border of each axis lies; infinitely far: there is none left.
        ahead_x = (x + 1 - px) / dx if x < end_x else ((x - px) / dx if x > end_x else math.inf)
        ahead_y = (y + 1 - py) / dy if y < end_y else ((y - py) / dy if y > end_y else math.inf)
        ahead_z = (z + 1 - pz) / dz if z < end_z else ((z - pz) / dz if z > end_z else math.inf)
        next_border = min(ahead_x, min(ahead_y, ahead_z))
        if next_border == math.inf:
            return met
        # Through an edge or a corner it goes straight on, without the voxels beside it.
        if ahead_x == next_border:
            x += 1 if x < end_x else -1
        if ahead_y == next_border:
            y += 1 if y < end_y else -1
        if ahead_z == next_border:
            z += 1 if z < end_z else -1


@compiled()
def count(points: Any, offsets: Any, sizes: Any, stamps: Any, found: Any) -> None:
    """How many voxels each line meets, into found[1:]. `stamps` are 0 for each voxel."""
    for line in range(len(offsets) - 1):
        met = 0
        for index in range(offsets[line], offsets[line + 1]):
            met = _segment(
                points, index, min(index + 1, offsets[line + 1] - 1), sizes, stamps, line + 1, met, stamps, 0
            )
        found[line + 1] = met


@compiled()
def fill(points: Any, offsets: Any, sizes: Any, stamps: Any, found: Any, voxels: Any) -> None:
    """The voxels themselves; `found` says where those of each line begin."""
    for line in range(len(offsets) - 1):
        met = found[line]
        for index in range(offsets[line], offsets[line + 1]):
            met = _segment(
                points, index, min(index + 1, offsets[line + 1] - 1), sizes, stamps, line + 1, met, voxels, 1
            )
