"""The compiled loops of the triplane look-ups.

Forward and the gradient to the points are cut by blocks of points. The gradient to the table is cut by planes: each is
summed by one thread, in the order of the points. No two threads write the same number and no sum depends on their
count, so results are bitwise equal on any number of threads.

`unit` is a tuple with as many entries as a row has features, which unrolls the loops over them.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import numba
import numpy as np

from treadle.kernels.compiling import compiled

BLOCK = 512
"""Points that are handed out together."""


@numba.njit(inline="always")
def _share(count, part, parts):
    blocks = (count + BLOCK - 1) // BLOCK
    return min(blocks * part // parts * BLOCK, count), min(blocks * (part + 1) // parts * BLOCK, count)


@numba.njit(inline="always")
def _place(x, scale, last, real):
    # The cell along an axis, and how far into it. Written so that NaN passes through, and reads cell 0.
    u = (x + real(1)) * scale
    if u < real(0):
        u = real(0)
    if u > last:
        u = last
    c = min(np.int64(u), np.int64(last) - 1) if u > real(0) else np.int64(0)
    return c, u - real(c)


@compiled()
def forward(points, table, first, base, levels, unit, out, part, parts):
    """Encode points (n, 3) into out (n, levels * 3 * features); `first` has the first row of each plane."""
    real = points.dtype.type
    one = real(1)
    features = len(unit)
    start, stop = _share(points.shape[0], part, parts)
    for low in range(start, stop, BLOCK):
        for level in range(levels):
            n = (np.int64(1) << (base + level)) + 1
            scale, last = real(0.5) * real(n - 1), real(n - 1)
            for plane in range(3):
                rows = table[first[3 * level + plane] :]
                at = (3 * level + plane) * features
                across = (plane + 1) % 3
                for i in range(low, min(low + BLOCK, stop)):
                    x, a = _place(points[i, plane], scale, last, real)
                    y, b = _place(points[i, across], scale, last, real)
                    r = x + n * y
                    s00, s10, s01, s11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
                    for f in range(features):
                        out[i, at + f] = (
                            s00 * rows[r, f] + s10 * rows[r + 1, f] + s01 * rows[r + n, f] + s11 * rows[r + n + 1, f]
                        )


@compiled()
def table_gradient(points, grad, first, base, levels, unit, grad_table, part, parts):
    """Add to `grad_table` the gradient from all points; part k sums planes k, k + parts, k + 2 parts ..."""
    real = points.dtype.type
    one = real(1)
    features = len(unit)
    for number in range(part, 3 * levels, parts):
        level, plane = number // 3, number % 3
        n = (np.int64(1) << (base + level)) + 1
        scale, last = real(0.5) * real(n - 1), real(n - 1)
        rows = grad_table[first[number] :]
        across = (plane + 1) % 3
        for i in range(points.shape[0]):
            x, a = _place(points[i, plane], scale, last, real)
            y, b = _place(points[i, across], scale, last, real)
            r = x + n * y
            s00, s10, s01, s11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
            for f in range(features):
                g = grad[i, number * features + f]
                rows[r, f] += s00 * g
                rows[r + 1, f] += s10 * g
                rows[r + n, f] += s01 * g
                rows[r + n + 1, f] += s11 * g


@compiled()
def point_gradient(points, grad, table, first, base, levels, unit, grad_points, part, parts):
    """Write the gradient to the points (n, 3); zero along an axis where the point was clipped."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features = len(unit)
    start, stop = _share(points.shape[0], part, parts)
    for i in range(start, stop):
        for axis in range(3):
            grad_points[i, axis] = zero
        for level in range(levels):
            n = (np.int64(1) << (base + level)) + 1
            scale, last = real(0.5) * real(n - 1), real(n - 1)
            for plane in range(3):
                rows = table[first[3 * level + plane] :]
                at = (3 * level + plane) * features
                across = (plane + 1) % 3
                x, a = _place(points[i, plane], scale, last, real)
                y, b = _place(points[i, across], scale, last, real)
                r = x + n * y
                slope_a, slope_b = zero, zero
                for f in range(features):
                    g = grad[i, at + f]
                    t00, t10, t01, t11 = rows[r, f], rows[r + 1, f], rows[r + n, f], rows[r + n + 1, f]
                    slope_a += g * ((one - b) * (t10 - t00) + b * (t11 - t01))
                    slope_b += g * ((one - a) * (t01 - t00) + a * (t11 - t10))
                grad_points[i, plane] += slope_a * scale
                grad_points[i, across] += slope_b * scale
        for axis in range(3):
            if points[i, axis] < -one or points[i, axis] > one:
                grad_points[i, axis] = zero
