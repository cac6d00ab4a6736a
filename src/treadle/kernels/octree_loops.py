"""The compiled loops of the octree look-ups.

Forward and the gradient to the points are cut by blocks of points. The gradient to the table is cut by levels: every
level is summed by one thread, in the order of the points. No two threads write the same number and no sum depends on
their count, so results are bitwise equal on any number of threads.

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
def _within(position, last, shift, shrink, real):
    # The cell of the finest level, and how far into the one `shift` levels above it the position is.
    cell = min(np.int64(position), last)
    return cell, position * shrink - real(cell >> shift)


@compiled()
def forward(points, table, roots, records, base, levels, unit, out, found, part, parts):
    """Encode points (n, 3) into out (n, levels * features); `found` (n, levels) gets the records, -1 for none."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features, finest = len(unit), base + levels - 1
    last, scale = (np.int64(1) << finest) - 1, real(0.5) * real(np.int64(1) << finest)
    start, stop = _share(points.shape[0], part, parts)
    for i in range(start, stop):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        node = np.int32(-1)
        # NaN is passed on, to be seen in the result.
        rest = real(np.nan) if px != px or py != py or pz != pz else zero
        u, v, w = (px + one) * scale, (py + one) * scale, (pz + one) * scale
        if -one <= px <= one and -one <= py <= one and -one <= pz <= one:
            s = finest - base
            x, y, z = min(np.int64(u), last) >> s, min(np.int64(v), last) >> s, min(np.int64(w), last) >> s
            node = roots[x + ((y + (z << base)) << base)]
        for level in range(levels):
            found[i, level] = node
            first = level * features
            if node < 0:
                for f in range(features):
                    out[i, first + f] = rest
                continue
            record = records[node]
            s = finest - base - level
            shrink = one / real(np.int64(1) << s)
            x, a = _within(u, last, s, shrink, real)
            y, b = _within(v, last, s, shrink, real)
            z, c = _within(w, last, s, shrink, real)
            s00, s10, s01, s11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
            for f in range(features):
                near = s00 * table[record[8], f] + s10 * table[record[9], f]
                near += s01 * table[record[10], f] + s11 * table[record[11], f]
                far = s00 * table[record[12], f] + s10 * table[record[13], f]
                far += s01 * table[record[14], f] + s11 * table[record[15], f]
                out[i, first + f] = (one - c) * near + c * far
            if s:
                s -= 1
                node = record[(x >> s & 1) + 2 * (y >> s & 1) + 4 * (z >> s & 1)]


@compiled()
def table_gradient(points, grad, found, records, base, levels, unit, grad_table, part, parts):
    """Add to `grad_table` the gradient from all points; part k sums levels k, k + parts, k + 2 parts ..."""
    real = points.dtype.type
    one = real(1)
    features, finest = len(unit), base + levels - 1
    last, scale = (np.int64(1) << finest) - 1, real(0.5) * real(np.int64(1) << finest)
    for level in range(part, levels, parts):
        s, first = finest - base - level, level * features
        shrink = one / real(np.int64(1) << s)
        for i in range(points.shape[0]):
            node = found[i, level]
            if node < 0:
                continue
            record = records[node]
            _, a = _within((points[i, 0] + one) * scale, last, s, shrink, real)
            _, b = _within((points[i, 1] + one) * scale, last, s, shrink, real)
            _, c = _within((points[i, 2] + one) * scale, last, s, shrink, real)
            s00, s10, s01, s11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
            for f in range(features):
                near, far = (one - c) * grad[i, first + f], c * grad[i, first + f]
                grad_table[record[8], f] += s00 * near
                grad_table[record[9], f] += s10 * near
                grad_table[record[10], f] += s01 * near
                grad_table[record[11], f] += s11 * near
                grad_table[record[12], f] += s00 * far
                grad_table[record[13], f] += s10 * far
                grad_table[record[14], f] += s01 * far
                grad_table[record[15], f] += s11 * far


@compiled()
def point_gradient(points, grad, found, table, records, base, levels, unit, grad_points, part, parts):
    """Write the gradient to the points (n, 3): from the levels in which they are in a cell."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features, finest = len(unit), base + levels - 1
    last, scale = (np.int64(1) << finest) - 1, real(0.5) * real(np.int64(1) << finest)
    start, stop = _share(points.shape[0], part, parts)
    for i in range(start, stop):
        total_x, total_y, total_z = zero, zero, zero
        for level in range(levels):
            node = found[i, level]
            if node < 0:
                break
            record = records[node]
            s = finest - base - level
            shrink = one / real(np.int64(1) << s)
            _, a = _within((points[i, 0] + one) * scale, last, s, shrink, real)
            _, b = _within((points[i, 1] + one) * scale, last, s, shrink, real)
            _, c = _within((points[i, 2] + one) * scale, last, s, shrink, real)
            slope_x, slope_y, slope_z = zero, zero, zero
            for f in range(features):
                g = grad[i, level * features + f]
                t0, t1, t2, t3 = table[record[8], f], table[record[9], f], table[record[10], f], table[record[11], f]
                t4, t5, t6, t7 = table[record[12], f], table[record[13], f], table[record[14], f], table[record[15], f]
                near_0, near_1 = t0 + a * (t1 - t0), t2 + a * (t3 - t2)
                far_0, far_1 = t4 + a * (t5 - t4), t6 + a * (t7 - t6)
                rise_near, rise_far = (one - b) * (t1 - t0) + b * (t3 - t2), (one - b) * (t5 - t4) + b * (t7 - t6)
                slope_x += g * (rise_near + c * (rise_far - rise_near))
                slope_y += g * ((one - c) * (near_1 - near_0) + c * (far_1 - far_0))
                slope_z += g * (far_0 + b * (far_1 - far_0) - near_0 - b * (near_1 - near_0))
            per = scale * shrink
            total_x += per * slope_x
            total_y += per * slope_y
            total_z += per * slope_z
        grad_points[i, 0], grad_points[i, 1], grad_points[i, 2] = total_x, total_y, total_z
