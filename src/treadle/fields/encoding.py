"""Points as sines and cosines of rising frequency (NeRF, Mildenhall et al. 2020, https://arxiv.org/abs/2003.08934)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.grid import Grid

DIRECTION_FREQUENCIES = 4
"""Those of NeRF's encoding of directions: 27 values."""

MOST_FREQUENCIES = 16
"""Of a higher one, float32 has no digits left."""


def positional(points: Tensor, frequencies: int) -> Tensor:
    """The points themselves, then sin(2^k pi x) and cos(2^k pi x) of every coordinate for k = 0, 1, ...

    Args:
        points: (n, d), in [-1, 1] for the lowest frequency to pass once over the box.
        frequencies: how many; 0 gives the points alone.

    Returns:
        (n, d (1 + 2 frequencies)): d coordinates, then d sines and d cosines for each frequency, the lowest first.
    """
    if not 0 <= frequencies <= MOST_FREQUENCIES:
        raise UsageError(f"positional: frequencies is {frequencies}: expected 0 to {MOST_FREQUENCIES}")
    if frequencies == 0:
        return points
    factors = math.pi * 2.0 ** torch.arange(frequencies, device=points.device).to(points.dtype)
    angles = points[:, None, :] * factors[:, None]
    waves = torch.stack((angles.sin(), angles.cos()), dim=2)
    return torch.cat((points, waves.flatten(1)), dim=1)


def directional(directions: Tensor) -> Tensor:
    """NeRF's encoding of unit vectors (n, 3): themselves and four frequencies, (n, 27)."""
    return positional(directions, DIRECTION_FREQUENCIES)


class PositionalGrid(Grid):
    """The encoded points behind a grid's features; without a grid, the encoded points alone.

    The points count at every level of detail. `frequencies` 0 appends the points as they are.

    Args:
        grid: whose features come first; None for a field without a grid.
        frequencies: see `positional`.
        dimensions: of the points, where there is no grid.
    """

    def __init__(self, grid: Grid | None, frequencies: int, dimensions: int = 3) -> None:
        super().__init__()
        positional(torch.zeros(1, 1), frequencies)  # refuses one that is out of range
        self.grid: nn.Module | None = grid
        self.frequencies = frequencies
        self.dimensions = dimensions if grid is None else grid.dimensions
        self.levels = 1 if grid is None else grid.levels
        self.width = self.dimensions * (1 + 2 * frequencies) + (0 if grid is None else grid.width)

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, d) as (n, width)."""
        encoded = positional(points, self.frequencies)
        return encoded if self.grid is None else torch.cat((self.grid(points, lod), encoded), dim=1)

    def extra_repr(self) -> str:
        """For `print(module)`."""
        return f"frequencies={self.frequencies}"
