"""What every grid of features is: points in, a vector of features out."""

from __future__ import annotations

from torch import Tensor, nn


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
