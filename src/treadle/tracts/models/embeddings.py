"""What is made of the features at a point before a model sees them: nothing, a layer, or convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from treadle.errors import UsageError

Embedding = Literal["none", "nn", "cnn"]


class Convolutions(nn.Module):
    """3-D convolutions with ReLU over the grid of neighbours around each point, without padding.

    dwi_ml's CNN embedding. The features of a row are those of the point itself, then those of its neighbours in the
    order of a `neighbourhood` of the kind "grid": x slowest, the point itself left out.
    """

    order: Tensor

    def __init__(self, inputs: int, neighbours: int, filters: Sequence[int], kernels: Sequence[int]) -> None:
        """
        Args:
            inputs: features per row, those of all neighbours.
            neighbours: 27 or 125, the point itself among them.
            filters: the channels that each layer makes.
            kernels: the size of each layer's kernel, along each axis.

        Raises:
            UsageError: no grid, or one that the kernels do not fit in.
        """
        super().__init__()
        self.side = {27: 3, 125: 5}.get(neighbours, 0)
        if self.side == 0 or inputs % neighbours:
            raise UsageError(
                f"the embedding 'cnn' reads a grid of 27 or 125 neighbours: there are {neighbours} "
                f"(set neighbourhood: grid, or another embedding)"
            )
        if len(filters) != len(kernels) or not filters:
            raise UsageError(f"{len(filters)} filters and {len(kernels)} kernels: expected one of each for every layer")
        channels, side = [inputs // neighbours, *filters], self.side - sum(kernel - 1 for kernel in kernels)
        if side < 1:
            raise UsageError(f"kernels of sizes {list(kernels)} do not fit into a grid of {self.side} voxels")
        self.layers = nn.ModuleList(
            nn.Conv3d(before, after, kernel)
            for before, after, kernel in zip(channels[:-1], filters, kernels, strict=True)
        )
        self.width = filters[-1] * side**3
        centre, others = neighbours // 2, torch.arange(1, neighbours)
        self.register_buffer("order", torch.cat([others[:centre], torch.zeros(1, dtype=torch.int64), others[centre:]]))

    def forward(self, features: Tensor) -> Tensor:
        """(n, neighbours * f) -> (n, width)."""
        cells = self.side**3
        rows = features.view(len(features), cells, features.shape[1] // cells)[:, self.order]
        grid = rows.transpose(1, 2).unflatten(2, (self.side, self.side, self.side))
        for layer in self.layers:
            grid = layer(grid).relu()
        return grid.flatten(1)


def build_embedding(
    kind: Embedding,
    inputs: int,
    size: int,
    *,
    neighbours: int = 1,
    filters: Sequence[int] = (),
    kernels: Sequence[int] = (),
    dropout: float = 0.0,
) -> tuple[nn.Module, int]:
    """The module from (n, inputs) to (n, width), and that width.

    "none" gives the features as they are, as does any other where there are none; "nn" is a linear layer to `size` with
    ReLU; "cnn" see `Convolutions`. Dropout follows "nn" and "cnn".
    """
    if kind == "none" or inputs == 0:
        return nn.Identity(), inputs
    if kind == "nn":
        return nn.Sequential(nn.Linear(inputs, size), nn.ReLU(), nn.Dropout(dropout)), size
    convolutions = Convolutions(inputs, neighbours, filters, kernels)
    return nn.Sequential(convolutions, nn.Dropout(dropout)), convolutions.width
