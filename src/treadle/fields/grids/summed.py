"""Any grid with its levels added up instead of standing side by side."""

from __future__ import annotations

from torch import Tensor

from treadle.fields.grid import Grid


class SummedGrid(Grid):
    """The features of a grid's levels, summed: as wide as one level. Finer levels are left out by `lod` here too."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.dimensions, self.levels, self.width = grid.dimensions, grid.levels, grid.width // grid.levels

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, d) as (n, width)."""
        found: Tensor = self.grid(points, lod)
        return found.unflatten(1, (self.levels, self.width)).sum(1)
