"""The compiled loop of trilinear interpolation.

Points are cut into blocks; each is read by one thread, in one way. So results are bitwise equal on any number of
threads. `unit` is a tuple with as many entries as a voxel has features, which unrolls the loop over few of them; it is
empty where there are many, whose loop is vectorized as it is.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import numba
import numpy as np

from treadle.kernels.compiling import compiled

BLOCK = 512
"""Points that are handed out together."""

UNROLLED = 8
"""Features up to which the loop over them is unrolled."""


@numba.njit(inline="always")
def _place(x, size):
    # The lower voxel along an axis, and how far beyond its centre. NaN passes through, and reads voxel 0.
    last = np.float32(size - 1)
    u = x - np.float32(0.5)
    if u < np.float32(0):
        u = np.float32(0)
    if u > last:
        u = last
    c = min(np.int64(u), size - 2) if u > np.float32(0) else np.int64(0)
    return c, u - np.float32(c)


@compiled()
def interpolate(volume, shape, features, points, offsets, unit, out, part, parts):
    """Read `volume` (x * y * z * features,) of that shape at points (n, 3) + offsets (k, 3) into out (n, k * f)."""
    one = np.float32(1)
    sx, sy, sz = shape
    # Along an axis of one voxel there is no next one: it is the same, with weight 0.
    z = features if sz > 1 else 0
    y = sz * features if sy > 1 else 0
    x = sy * sz * features if sx > 1 else 0
    count, beside = points.shape[0], offsets.shape[0]
    blocks = (count + BLOCK - 1) // BLOCK
    start, stop = min(blocks * part // parts * BLOCK, count), min(blocks * (part + 1) // parts * BLOCK, count)
    for i in range(start, stop):
        for k in range(beside):
            cx, a = _place(points[i, 0] + offsets[k, 0], sx)
            cy, b = _place(points[i, 1] + offsets[k, 1], sy)
            cz, c = _place(points[i, 2] + offsets[k, 2], sz)
            r = ((cx * sy + cy) * sz + cz) * features
            w00, w01, w10, w11 = (one - a) * (one - b), (one - a) * b, a * (one - b), a * b
            w000, w001, w010, w011 = w00 * (one - c), w00 * c, w01 * (one - c), w01 * c
            w100, w101, w110, w111 = w10 * (one - c), w10 * c, w11 * (one - c), w11 * c
            # Slices: an index from 0 on cannot be negative, and its loop is vectorized.
            v000, v001, v010, v011 = volume[r:], volume[r + z :], volume[r + y :], volume[r + y + z :]
            r += x
            v100, v101, v110, v111 = volume[r:], volume[r + z :], volume[r + y :], volume[r + y + z :]
            to = out[i, k * features : (k + 1) * features]
            if len(unit) > 0:
                for f in range(len(unit)):
                    low = w000 * v000[f] + w001 * v001[f] + w010 * v010[f] + w011 * v011[f]
                    to[f] = low + w100 * v100[f] + w101 * v101[f] + w110 * v110[f] + w111 * v111[f]
            else:
                for f in range(features):
                    low = w000 * v000[f] + w001 * v001[f] + w010 * v010[f] + w011 * v011[f]
                    to[f] = low + w100 * v100[f] + w101 * v101[f] + w110 * v110[f] + w111 * v111[f]
