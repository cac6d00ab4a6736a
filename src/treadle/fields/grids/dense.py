"""Dense grids in several resolutions: a hash grid in which nothing is hashed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.grid import Grid
from treadle.kernels.hashgrid import encode
from treadle.kernels.layout import GridLayout

LOG2_MOST = 24
"""Base-two logarithm of the most vertices that a level may have: 256 per axis in space, 4096 in the plane."""


class DenseGrid(Grid):
    """`features` values at every vertex of `levels` regular grids, d-linear in between; levels are concatenated.

    Level l has floor(n_min b^l) vertices per axis, from `n_min` to `n_max`, the first and the last of them on the
    border of the box. The only parameter is `table` (rows, features), float32, uniform in +-1e-4: level by level, in
    each x before y before z.
    """

    def __init__(
        self, dimensions: int = 3, levels: int = 3, features: int = 4, n_min: int = 16, n_max: int = 64
    ) -> None:
        super().__init__()
        GridLayout(dimensions, levels, features, LOG2_MOST, n_min, n_max)  # says what is out of range
        if n_max**dimensions > 2**LOG2_MOST:
            most = round(2 ** (LOG2_MOST / dimensions))
            raise UsageError(f"dense grid: n_max is {n_max}: expected at most {most}, or a hash grid")
        log2_size = max(1, (n_max**dimensions - 1).bit_length())
        self.layout = GridLayout(dimensions, levels, features, log2_size, n_min, n_max)
        self.dimensions, self.levels, self.width = dimensions, levels, self.layout.width
        self.table = nn.Parameter(torch.empty(self.layout.rows, features).uniform_(-1e-4, 1e-4))

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, d) as (n, levels * features)."""
        return encode(points.to(self.table.dtype), self.table, self.layout, self.used(lod))

    def extra_repr(self) -> str:
        """For `print(module)`."""
        return f"{self.dimensions}, features={self.layout.features}, resolutions={self.layout.resolutions}"
