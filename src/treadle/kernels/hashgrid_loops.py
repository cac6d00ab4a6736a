"""The compiled loops of the hash-grid encoding: for every level, block after block of points.

Levels come outermost: the rows of one stay in the cache while all points pass over it. Features and their gradients lie
level by level, (levels, padded, features), with points padded to whole blocks. `encode` and `point_gradient` are cut by
blocks of points; `table_gradient` by levels, each of which is summed by one thread in the order of the points. No two
threads write the same number and no sum depends on their count: results are bitwise equal on any number of threads.

A row of `levels` is (resolution, first row, rows - 1, hashed); of `scales`, what x + 1 is multiplied by. The tuples
`axes` and `unit` are as long as points have axes and rows have features. Of fast math only contraction to fused
multiply-add is allowed: NaN stays NaN, sums keep their order.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, assignment"
from __future__ import annotations

import numba
import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.corners import blend, corners, meet, scatter, slopes
from treadle.kernels.lanes import COUNT
from treadle.kernels.layout import BLOCK


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _find(rows, shares, coordinates, start, apart, count, level, scale, axes):
    # The corners around the points of a block, of which `count` are some.
    real = shares.dtype.type
    n = level[0]
    last, far = real(n - 1), real(n - 2)
    resolution, mask = np.int32(n), np.int32(level[2])
    if level[3]:
        for slot in range(0, count, COUNT):
            corners(rows, shares, slot, coordinates, start + slot, apart, scale, last, far, resolution, mask, 1, axes)
    else:
        for slot in range(0, count, COUNT):
            corners(rows, shares, slot, coordinates, start + slot, apart, scale, last, far, resolution, mask, 0, axes)


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def encode_some(coordinates, apart, first, last, table, levels, scales, axes, unit, out, out_apart, shift, scratch):
    """Encode the points `first` to `last`, the first a multiple of BLOCK: level k into out from k * out_apart on.

    Args:
        coordinates, apart: flat; axis a from a * apart on.
        table: flat, all rows.
        out, out_apart, shift: flat; point i of level k is row k * out_apart + i - shift.
        scratch: int32 and real arrays of 2^axes * BLOCK numbers.
    """
    rows, shares = scratch
    for level in range(levels.shape[0]):
        for start in range(first, last, BLOCK):
            count = min(BLOCK, last - start)
            _find(rows, shares, coordinates, start, apart, count, levels[level], scales[level], axes)
            blend(out, level * out_apart + start - shift, table, levels[level, 1], rows, shares, count, axes, unit)


@compiled()
def encode(coordinates, points, table, levels, scales, axes, unit, out, part, parts):
    """Encode `points` points, all lying in coordinates (axes, padded): out (levels, padded, features), all flat."""
    padded = coordinates.size // len(axes)
    blocks = padded // BLOCK
    first, last = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, points)
    scratch = np.empty(BLOCK << len(axes), np.int32), np.empty(BLOCK << len(axes), table.dtype)
    encode_some(coordinates, padded, first, last, table, levels, scales, axes, unit, out, padded, 0, scratch)


@compiled()
def table_gradient(coordinates, points, grad, levels, scales, axes, unit, grad_table, part, parts):
    """Write the rows of these levels in grad_table, from grad (levels, padded, features), all flat.

    A part sums levels part, part + parts, ...: each when its rows, set to zero, are still in the cache.
    """
    padded = coordinates.size // len(axes)
    rows, shares = np.empty(BLOCK << len(axes), np.int32), np.empty(BLOCK << len(axes), grad.dtype)
    for level in range(part, levels.shape[0], parts):
        begin = levels[level, 1] * len(unit)
        grad_table[begin : begin + (levels[level, 2] + 1) * len(unit)] = 0
        for start in range(0, points, BLOCK):
            count = min(BLOCK, points - start)
            _find(rows, shares, coordinates, start, padded, count, levels[level], scales[level], axes)
            scatter(grad_table, levels[level, 1], grad, level * padded + start, rows, shares, count, axes, unit)


@compiled()
def point_gradient(coordinates, points, grad, table, levels, scales, axes, unit, grad_coordinates, part, parts):
    """Write grad_coordinates (axes, padded); zero along an axis where a point was clipped."""
    real = grad.dtype.type
    padded = coordinates.size // len(axes)
    blocks = padded // BLOCK
    first, last = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, points)
    rows, shares = np.empty(BLOCK << len(axes), np.int32), np.empty(BLOCK << len(axes), grad.dtype)
    dots = np.zeros(BLOCK << len(axes), grad.dtype)
    for axis in range(len(axes)):
        grad_coordinates[axis * padded + first : axis * padded + max(first, last)] = real(0)
    for level in range(levels.shape[0]):
        n = levels[level, 0]
        for start in range(first, last, BLOCK):
            count = min(BLOCK, last - start)
            _find(rows, shares, coordinates, start, padded, count, levels[level], scales[level], axes)
            meet(dots, grad, level * padded + start, table, levels[level, 1], rows, count, axes, unit)
            for slot in range(0, count, COUNT):
                slopes(
                    grad_coordinates, dots, slot, coordinates, start + slot, padded,
                    scales[level], real(n - 1), real(n - 2), axes,
                )  # fmt: skip
