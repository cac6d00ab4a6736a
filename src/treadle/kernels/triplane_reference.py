"""Triplanes in plain torch: the definition the compiled kernels are held to, and what a GPU runs.

Level l has three planes of n x n rows, n = 2^l + 1, whose first and last rows lie on the border of the box: the planes
of (x, y), (y, z) and (z, x). A point reads the bilinear blend of each: u = clip((n - 1)(x + 1) / 2, 0, n - 1),
c = min(floor(u), n - 2), weights u - c. In a plane of the axes (a, b) the vertex (c_a, c_b) is at row c_a + n c_b.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AXES = ((0, 1), (1, 2), (2, 0))
"""The axes of the three planes of a level."""


def first_rows(base: int, levels: int) -> tuple[int, ...]:
    """The first row of each plane, level by level, and at the end the number of rows."""
    found = [0]
    for level in range(base, base + levels):
        found += [found[-1] + plane * (2**level + 1) ** 2 for plane in (1, 2, 3)]
    return tuple(found)


def encode_reference(points: Tensor, table: Tensor, base: int, levels: int) -> Tensor:
    """Encode points with differentiable torch operations, on any device and in any floating dtype.

    Args:
        points: (n, 3) in [-1, 1]; those outside are taken at the border.
        table: (first_rows(base, levels)[-1], features) learnt rows, of the dtype and on the device of `points`.
        base, levels: the levels are base to base + levels - 1.

    Returns:
        (n, levels * 3 * features): level by level, plane by plane.
    """
    first = first_rows(base, levels)
    found = []
    for level in range(levels):
        n = 2 ** (base + level) + 1
        position = ((points + 1) * ((n - 1) / 2)).clamp(0, n - 1)
        # A NaN coordinate reads row 0 and stays NaN through the weights: seen by a finite check, never out of bounds.
        cell = position.detach().nan_to_num(0.0).long().clamp(max=n - 2)
        weight = position - cell
        for plane, axes in enumerate(AXES):
            found.append(_plane(table[first[3 * level + plane] :], weight, cell, n, axes))
    return torch.cat(found, dim=1)


def _plane(rows: Tensor, weight: Tensor, cell: Tensor, n: int, axes: Sequence[int]) -> Tensor:
    a, b = (weight[:, axis, None] for axis in axes)
    row = cell[:, axes[0]] + n * cell[:, axes[1]]
    low = (1 - a) * rows[row] + a * rows[row + 1]
    high = (1 - a) * rows[row + n] + a * rows[row + n + 1]
    return (1 - b) * low + b * high
