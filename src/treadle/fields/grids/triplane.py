"""Features in three planes per level (as EG3D has them, Chan et al. 2022, https://arxiv.org/abs/2112.07945)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.grid import Grid
from treadle.fields.grids.hash import kept
from treadle.kernels.triplane import encode
from treadle.kernels.triplane_reference import first_rows

FINEST = 12
"""The finest level: planes of 4097 x 4097."""


class TriplaneGrid(Grid):
    """`features` values at every vertex of three planes per level, bilinear in between; all are concatenated.

    Levels are `base` to `base + levels - 1`; level l has planes of (2^l + 1)^2 vertices, over (x, y), (y, z) and
    (z, x). A point sees a level as 3 * features values. The only parameter is `table` (rows, features), float32,
    uniform in +-1e-4.
    """

    def __init__(self, levels: int = 4, features: int = 8, base: int = 4) -> None:
        super().__init__()
        if not 1 <= features <= 8:
            raise UsageError(f"triplane: features is {features}: expected 1 to 8")
        if base < 0 or levels < 1 or base + levels - 1 > FINEST:
            raise UsageError(
                f"triplane: base is {base} and levels {levels}: expected levels from 0 to {FINEST}, one at least"
            )
        self.dimensions, self.levels, self.width = 3, levels, levels * 3 * features
        self.base, self.features = base, features
        self.table = nn.Parameter(torch.empty(first_rows(base, levels)[-1], features).uniform_(-1e-4, 1e-4))

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, 3) as (n, levels * 3 * features)."""
        found = encode(points.to(self.table.dtype), self.table, self.base, self.levels)
        return found if lod is None else kept(found, lod, 3 * self.features)

    def extra_repr(self) -> str:
        """For `print(module)`."""
        return f"levels={self.base} to {self.base + self.levels - 1}, features={self.features}"
