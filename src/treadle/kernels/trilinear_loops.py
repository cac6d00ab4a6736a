"""The compiled loop of trilinear interpolation.

Points are cut into blocks; each is read by one thread, in one way. So results are bitwise equal on any number of
threads. From 16 features on they are read sixteen at a time; fewer are one loop, unrolled by `unit`, a tuple with as
many entries (else empty).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

import numba
import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.lanes import COUNT, load, store

BLOCK = 512
"""Points that are handed out together."""

WIDE = COUNT
"""Features from which on they are read sixteen at a time."""


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
    """Read `volume` (x * y * z * features,) of that shape at points (n, 3) + offsets (k, 3) into out (n * k * f,)."""
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
            at = (i * beside + k) * features
            if features >= WIDE:
                # Blocks of 16; the last may overlap the one before it, and writes the same there once more.
                f = 0
                while f < features:
                    q = r + min(f, features - COUNT)
                    low = load(volume, q) * w000 + load(volume, q + z) * w001
                    low = low + load(volume, q + y) * w010 + load(volume, q + y + z) * w011
                    q += x
                    low = low + load(volume, q) * w100 + load(volume, q + z) * w101
                    low = low + load(volume, q + y) * w110 + load(volume, q + y + z) * w111
                    store(out, at + min(f, features - COUNT), low)
                    f += COUNT
            else:
                # Unsigned: an index that cannot be negative needs no look at that.
                q0, q1, q2, q3 = np.uint64(r), np.uint64(r + z), np.uint64(r + y), np.uint64(r + y + z)
                r += x
                q4, q5, q6, q7 = np.uint64(r), np.uint64(r + z), np.uint64(r + y), np.uint64(r + y + z)
                to = np.uint64(at)
                for each in range(len(unit)):
                    g = np.uint64(each)
                    low = w000 * volume[q0 + g] + w001 * volume[q1 + g] + w010 * volume[q2 + g] + w011 * volume[q3 + g]
                    high = w100 * volume[q4 + g] + w101 * volume[q5 + g] + w110 * volume[q6 + g] + w111 * volume[q7 + g]
                    out[to + g] = low + high
