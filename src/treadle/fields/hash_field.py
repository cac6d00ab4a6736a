"""A hash grid under a small decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.decoder import Decoder, Output, decoded
from treadle.fields.grids.hash import HashEncoding

__all__ = ["Decoder", "HashEncoding", "HashField", "Output", "pixel_centres"]

CHUNK = 65536
"""Points evaluated at a time where no gradient is kept."""


class HashField(nn.Module):
    """A function of space: hash-grid encoding, then a decoder. Points in [-1, 1]^d give `outputs` values each."""

    def __init__(self, grid: HashEncoding, outputs: int, hidden: int = 64, layers: int = 2, output: Output = "sigmoid"):
        super().__init__()
        self.grid = grid
        self.decoder = Decoder(grid.layout.width, outputs, hidden, layers, output)

    def forward(self, points: Tensor) -> Tensor:
        """Evaluate `points` (n, d); returns (n, outputs)."""
        return decoded(self.grid, self.decoder, points)

    @torch.no_grad()
    def evaluate(self, points: Tensor) -> Tensor:
        """Evaluate `points` (n, d) without gradient, in chunks; returns (n, outputs) in float32."""
        device = self.grid.table.device
        parts = [self(part.to(device)).float() for part in points.split(CHUNK)]
        return torch.cat(parts) if parts else points.new_empty(0, self.decoder.outputs)

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
