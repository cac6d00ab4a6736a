"""The compiled loop of `tsdf`."""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

import math
from typing import Any

from numba import prange

from treadle.kernels.compiling import compiled


@compiled(parallel=True)
def integrate(
    distances: Any, weights: Any, colors: Any, depth: Any, image: Any, pose: Any, place: Any, parts: int
) -> None:
    """See `tsdf.integrate`; place = origin (3), voxel, truncation, fx, fy, cx, cy. Slabs of x are shared out."""
    count_x, count_y, count_z = distances.shape
    height, width = depth.shape
    voxel, truncation, fx, fy, cx, cy = place[3], place[4], place[5], place[6], place[7], place[8]
    for part in prange(parts):
        for i in range(count_x * part // parts, count_x * (part + 1) // parts):
            x = place[0] + voxel * i
            for j in range(count_y):
                y = place[1] + voxel * j
                for k in range(count_z):
                    z = place[2] + voxel * k
                    far = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
                    if far <= 0.0:
                        continue
                    column = fx * (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]) / far + cx
                    row = fy * (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]) / far + cy
                    if not (0.0 <= column < width and 0.0 <= row < height):
                        continue
                    near_row, near_column = int(row), int(column)
                    seen = depth[near_row, near_column]
                    if seen < 0.0:
                        continue
                    # Between four pixels of one surface the depth is interpolated, across an edge it is the nearest's.
                    top, left = math.floor(row - 0.5), math.floor(column - 0.5)
                    if 0 <= top < height - 1 and 0 <= left < width - 1:
                        a, b = depth[top, left], depth[top, left + 1]
                        c, d = depth[top + 1, left], depth[top + 1, left + 1]
                        lowest, highest = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
                        if lowest >= 0.0 and highest - lowest < truncation:  # not where one is infinite
                            u, v = column - 0.5 - left, row - 0.5 - top
                            seen = (a * (1.0 - u) + b * u) * (1.0 - v) + (c * (1.0 - u) + d * u) * v
                    behind = seen - far
                    if behind < -truncation:
                        continue
                    weight = weights[i, j, k]
                    distances[i, j, k] = (distances[i, j, k] * weight + min(1.0, behind / truncation)) / (weight + 1.0)
                    weights[i, j, k] = weight + 1.0
                    if behind < truncation:
                        for channel in range(3):
                            colors[i, j, k, channel] += image[near_row, near_column, channel]
                        colors[i, j, k, 3] += 1.0
