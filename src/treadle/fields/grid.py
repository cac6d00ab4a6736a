"""What every grid of features is: points in, a vector of features out."""

from __future__ import annotations

from torch import Tensor, nn

from treadle.errors import UsageError


class Grid(nn.Module):
    """Features over [-1, 1]^d, learnt, in levels from coarse to fine.

    Attributes:
        dimensions: d, of the points.
        levels: how many levels of detail there are.
        width: values per encoded point.
    """

    dimensions: int
    levels: int
    width: int

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, d) as (n, width).

        Args:
            points: coordinates in [-1, 1]; those outside are taken at the border.
            lod: the finest level of detail that counts, 0 to levels - 1; features of finer ones
                are zero. None takes all.
        """
        raise NotImplementedError(f"{type(self).__name__} is a Grid without forward(points, lod)")

    def used(self, lod: int | None) -> int:
        """How many levels count up to level of detail `lod`; raises UsageError for one that there is not."""
        if lod is not None and not 0 <= lod < self.levels:
            raise UsageError(f"lod is {lod}: expected 0 to {self.levels - 1}")
        return self.levels if lod is None else lod + 1
