"""Trilinear interpolation as one would write it down: in NumPy, in Numba, and by torch's own operator."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import numba
import numpy as np
import torch
from numba import prange
from torch.nn import functional


def in_numpy(volume: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Eight gathers and their blend; points (n, 3) with corner origin."""
    last = np.array(volume.shape[:3]) - 1
    place = np.clip(points - np.float32(0.5), 0, last.astype(np.float32))
    low = np.minimum(place.astype(np.int64), last - 1)
    x, y, z = low.T
    a, b, c = (place - low).astype(np.float32).T[:, :, None]
    near = (volume[x, y, z] * (1 - c) + volume[x, y, z + 1] * c) * (1 - b)
    near += (volume[x, y + 1, z] * (1 - c) + volume[x, y + 1, z + 1] * c) * b
    far = (volume[x + 1, y, z] * (1 - c) + volume[x + 1, y, z + 1] * c) * (1 - b)
    far += (volume[x + 1, y + 1, z] * (1 - c) + volume[x + 1, y + 1, z + 1] * c) * b
    return np.asarray(near * (1 - a) + far * a)


@numba.njit(parallel=True, fastmath=True, cache=True)
def in_numba(volume, points, out):
    """A loop over points, a loop over features."""
    sx, sy, sz, features = volume.shape
    half, zero, one = np.float32(0.5), np.float32(0), np.float32(1)
    for i in prange(points.shape[0]):
        u = min(max(points[i, 0] - half, zero), np.float32(sx - 1))
        v = min(max(points[i, 1] - half, zero), np.float32(sy - 1))
        w = min(max(points[i, 2] - half, zero), np.float32(sz - 1))
        x, y, z = min(int(u), sx - 2), min(int(v), sy - 2), min(int(w), sz - 2)
        a, b, c = u - np.float32(x), v - np.float32(y), w - np.float32(z)
        for f in range(features):
            near = (volume[x, y, z, f] * (one - c) + volume[x, y, z + 1, f] * c) * (one - b)
            near += (volume[x, y + 1, z, f] * (one - c) + volume[x, y + 1, z + 1, f] * c) * b
            far = (volume[x + 1, y, z, f] * (one - c) + volume[x + 1, y, z + 1, f] * c) * (one - b)
            far += (volume[x + 1, y + 1, z, f] * (one - c) + volume[x + 1, y + 1, z + 1, f] * c) * b
            out[i, f] = near * (one - a) + far * a


def by_torch(volume: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """`grid_sample` of a volume (features, x, y, z)."""
    sizes = torch.tensor(volume.shape[1:], dtype=torch.float32)
    grid = (points / sizes * 2 - 1).flip(1)[None, None, None]
    found = functional.grid_sample(volume[None], grid, align_corners=False, padding_mode="border")
    return found[0, :, 0, 0].T
