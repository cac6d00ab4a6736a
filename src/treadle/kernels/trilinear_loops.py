"""The compiled loop of trilinear interpolation.

Points are cut into blocks; each is read by one thread, in one way. So results are bitwise equal on any number of
threads. Features are read sixteen at a time; where there are fewer, with what lies behind them, which is overwritten by
the next point's. At the ends of a block and of the volume, where nothing lies behind, they are read one by one.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

import numba
import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.lanes import COUNT, load, store

BLOCK = 512
"""Points that are handed out together."""


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
def interpolate(volume, shape, features, points, offsets, out, part, parts):
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
        # Up to here one thread writes, however many there are: what lies beyond is not its own.
        end = min((i // BLOCK + 1) * BLOCK, count) * beside * features
        for k in range(beside):
            cx, a = _place(points[i, 0] + offsets[k, 0], sx)
            cy, b = _place(points[i, 1] + offsets[k, 1], sy)
            cz, c = _place(points[i, 2] + offsets[k, 2], sz)
            r = ((cx * sy + cy) * sz + cz) * features
            w00, w01, w10, w11 = (one - a) * (one - b), (one - a) * b, a * (one - b), a * b
            w000, w001, w010, w011 = w00 * (one - c), w00 * c, w01 * (one - c), w01 * c
            w100, w101, w110, w111 = w10 * (one - c), w10 * c, w11 * (one - c), w11 * c
            at = (i * beside + k) * features
            # Fewer than 16 are read with what follows them, which the next point's then take the place of.
            alone = features < COUNT
            if not alone or (at + COUNT <= end and r + x + y + z + COUNT <= volume.shape[0]):
                # Blocks of 16; the last may overlap the one before it, and writes the same there once more.
                f = 0
                while f < features:
                    beyond = 0 if alone else min(f, features - COUNT)
                    q = r + beyond
                    low = load(volume, q) * w000 + load(volume, q + z) * w001
                    low = low + load(volume, q + y) * w010 + load(volume, q + y + z) * w011
                    q += x
                    low = low + load(volume, q) * w100 + load(volume, q + z) * w101
                    low = low + load(volume, q + y) * w110 + load(volume, q + y + z) * w111
                    store(out, at + beyond, low)
                    f += COUNT
            else:
                for f in range(features):
                    q = r + f
                    low = volume[q] * w000 + volume[q + z] * w001
                    low = low + volume[q + y] * w010 + volume[q + y + z] * w011
                    q += x
                    low = low + volume[q] * w100 + volume[q + z] * w101
                    out[at + f] = low + volume[q + y] * w110 + volume[q + y + z] * w111
