"""Trilinear interpolation in plain torch: the definition the compiled loop is held to, and what a GPU runs.

Voxel i spans [i, i + 1) and has its value at its centre, i + .5. So a point p reads at u = p - .5: i = floor(u), and
the values of voxels i and i + 1 along each axis, weighted 1 - (u - i) and u - i. Corners outside the volume are the
nearest voxel inside it, which is the same as to clip u to [0, size - 1].
"""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate_reference(volume: Tensor, points: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Read a volume at points, and at points beside them, on any device and in any floating dtype.

    Args:
        volume: (x, y, z, features), no axis empty.
        points: (n, 3) in voxel space with corner origin. Where a coordinate is NaN, what is read is NaN.
        offsets: (k, 3) in voxels; None reads at the points alone.

    Returns:
        (n, k * features): the features at the first offset, then those at the second, and so on.
    """
    places = points[:, None] if offsets is None else points[:, None] + offsets
    count, beside = places.shape[:2]
    places = places.reshape(-1, 3) - 0.5
    low, high, share = [], [], []
    for axis in range(3):
        last = volume.shape[axis] - 1
        u = places[:, axis].clamp(0, last)
        # A NaN reads voxel 0 and stays NaN through the weight: seen by who looks, never out of bounds.
        cell = u.nan_to_num(0.0).long().clamp(max=max(last - 1, 0))
        low.append(cell)
        high.append((cell + 1).clamp(max=last))
        share.append((u - cell)[:, None])
    found = torch.zeros((), dtype=volume.dtype, device=volume.device)
    for x, a in ((low[0], 1 - share[0]), (high[0], share[0])):
        for y, b in ((low[1], 1 - share[1]), (high[1], share[1])):
            for z, c in ((low[2], 1 - share[2]), (high[2], share[2])):
                found = found + a * b * c * volume[x, y, z]
    return found.reshape(count, beside * volume.shape[3])
