"""The hash-grid encoding in plain torch: the definition the compiled kernels are held to, and what a GPU runs.

For a point x in [-1, 1]^d and a level of N vertices per axis: u = clip((N - 1) (x + 1) / 2, 0, N - 1),
c = min(floor(u), N - 2), w = u - c (with `layout.flat_border`, u = clip(N (x + 1) / 2, 0, N - 1)). The feature is the
d-linear blend of the 2^d corners around c.
The row of a corner (c_x, c_y, c_z) is c_x + N c_y + N^2 c_z where the level is dense, else
(c_x xor 2654435761 c_y xor 805459861 c_z) mod T, in 64-bit integers.
"""

from __future__ import annotations

import itertools
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from treadle.kernels.layout import GridLayout

PRIMES = (1, 2654435761, 805459861)


def encode_reference(points: Tensor, table: Tensor, layout: GridLayout, levels: int | None = None) -> Tensor:
    """Encode points with differentiable torch operations, on any device and in any floating dtype.

    Args:
        points: (n, d) coordinates in [-1, 1]; those outside are clipped to the border.
        table: (layout.rows, layout.features) learnt rows, of the dtype and on the device of `points`.
        layout: where the rows lie.
        levels: how many levels count, from the coarsest on; features of finer ones are 0. None takes all.

    Returns:
        (n, layout.width) features, level by level.
    """
    used = range(layout.levels if levels is None else levels)
    found = torch.cat([_level(points, table, layout, level) for level in used], dim=1)
    return functional.pad(found, (0, layout.width - found.shape[1]))


def _level(points: Tensor, table: Tensor, layout: GridLayout, level: int) -> Tensor:
    n = layout.resolutions[level]
    position = ((points + 1) * layout.scales[level]).clamp(0, n - 1)
    # A NaN coordinate reads row 0 and stays NaN through the weights: seen by a finite check, never out of bounds.
    cell = position.detach().nan_to_num(0.0).long().clamp(max=n - 2)
    weight = position - cell
    result = points.new_zeros(points.shape[0], layout.features)
    for corner in itertools.product((0, 1), repeat=layout.dimensions):
        vertex = [cell[:, axis] + corner[axis] for axis in range(layout.dimensions)]
        if layout.dense[level]:
            row = sum(c * n**axis for axis, c in enumerate(vertex))
        else:
            row = reduce(torch.bitwise_xor, (c * p for c, p in zip(vertex, PRIMES, strict=False))) % layout.sizes[level]
        shares = [weight[:, axis] if corner[axis] else 1 - weight[:, axis] for axis in range(layout.dimensions)]
        share = reduce(torch.mul, shares)
        result = result + share[:, None] * table[layout.offsets[level] + row]
    return result
