"""A grid, hashed most of all, under a small decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.decoder import Decoder, Output, decoded
from treadle.fields.grid import Grid
from treadle.fields.grids.hash import HashEncoding

__all__ = ["Decoder", "HashEncoding", "HashField", "Output", "pixel_centres"]

CHUNK = 65536
"""Points evaluated at a time where no gradient is kept."""


class HashField(nn.Module):
    """A function of space: a grid's features, then a decoder. Points in [-1, 1]^d give `outputs` values each.

    Args:
        grid: a `HashEncoding`, or any other grid.
        outputs, hidden, layers, output: of its `Decoder`.
        decoder: another module from (n, grid.width) to (n, outputs) instead, such as a `Siren`.
    """

    def __init__(
        self,
        grid: Grid,
        outputs: int,
        hidden: int = 64,
        layers: int = 2,
        output: Output = "sigmoid",
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.outputs = grid, outputs
        self.decoder = Decoder(grid.width, outputs, hidden, layers, output) if decoder is None else decoder

    def forward(self, points: Tensor) -> Tensor:
        """Evaluate `points` (n, d); returns (n, outputs)."""
        return decoded(self.grid, self.decoder, points)

    @torch.no_grad()
    def evaluate(self, points: Tensor) -> Tensor:
        """Evaluate `points` (n, d) without gradient, in chunks; returns (n, outputs) in float32."""
        device = next(self.parameters()).device
        parts = [self(part.to(device)).float() for part in points.split(CHUNK)]
        return torch.cat(parts) if parts else points.new_empty(0, self.outputs)

    def render(self, height: int, width: int) -> Tensor:
        """Sample a two-dimensional field at the pixel centres of a picture; returns (height, width, outputs)."""
        if height < 1 or width < 1:
            raise UsageError(f"cannot render {height} x {width} pixels: both sides must be at least 1")
        return self.evaluate(pixel_centres(height, width)).reshape(height, width, -1)


def pixel_centres(height: int, width: int) -> Tensor:
    """The centres of all pixels in [-1, 1]^2, row by row: (height * width, 2), x before y, y downwards."""
    y = (2 * torch.arange(height) + 1) / height - 1
    x = (2 * torch.arange(width) + 1) / width - 1
    return torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=1)
