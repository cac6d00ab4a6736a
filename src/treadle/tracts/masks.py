"""Masks of voxels."""

from __future__ import annotations

import numpy as np


def dilated(mask: np.ndarray, times: int = 1) -> np.ndarray:
    """(x, y, z) bool: `mask` and the voxels that share a side with it, so many times over."""
    grown = np.asarray(mask, bool)
    for _ in range(times):
        inside = np.pad(grown, 1)
        parts = [np.roll(inside, shift, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for shift in (-1, 1)]
        grown = np.asarray(np.logical_or.reduce([grown, *parts]))
    return grown


def at_points(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n,) bool: whether points (n, 3), in voxel space with corner origin, lie in the mask; outside of it all: no."""
    voxel = np.floor(np.nan_to_num(np.asarray(points, np.float64), nan=-1.0)).astype(np.int64)
    inside = ((voxel >= 0) & (voxel < mask.shape)).all(axis=1)
    return np.asarray(inside & mask[tuple(np.clip(voxel, 0, np.array(mask.shape) - 1).T)])
