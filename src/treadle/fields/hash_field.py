"""The hash-grid encoding as a module, and a field: the encoding under a small decoder."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.kernels.hashgrid import encode
from treadle.kernels.layout import GridLayout
from treadle.kernels.mlp import mlp

Output = Literal["sigmoid", "none"]

CHUNK = 65536
"""Points evaluated at a time where no gradient is kept."""


class HashEncoding(nn.Module):
    """Encodes points in [-1, 1]^d as `levels * features` values; see `GridLayout` for its arguments.

    The only parameter is `table` (rows, features), float32, uniform in +-1e-4.
    """

    def __init__(
        self,
        dimensions: int,
        levels: int = 16,
        features: int = 2,
        log2_size: int = 15,
        n_min: int = 16,
        n_max: int = 512,
    ) -> None:
        super().__init__()
        self.layout = GridLayout(dimensions, levels, features, log2_size, n_min, n_max)
        self.table = nn.Parameter(torch.empty(self.layout.rows, features).uniform_(-1e-4, 1e-4))

    def forward(self, points: Tensor) -> Tensor:
        """Encode `points` (n, d) as (n, levels * features)."""
        return encode(points.to(self.table.dtype), self.table, self.layout)

    def extra_repr(self) -> str:
        """The layout, for `print(module)`."""
        return repr(self.layout).removeprefix("GridLayout(").removesuffix(")")


class Decoder(nn.Module):
    """A small perceptron, `inputs -> hidden x layers -> outputs`, ReLU between, linear or sigmoid at the end."""

    def __init__(
        self, inputs: int, outputs: int, hidden: int = 64, layers: int = 2, output: Output = "sigmoid"
    ) -> None:
        super().__init__()
        for name, value in (("outputs", outputs), ("hidden", hidden)):
            if value < 1:
                raise UsageError(f"decoder: {name} is {value}: expected at least 1")
        if layers < 0:
            raise UsageError(f"decoder: layers is {layers}: expected 0 or more")
        if output not in ("sigmoid", "none"):
            raise UsageError(f"decoder: output is {output!r}: expected 'sigmoid' or 'none'")
        self.output, self.outputs = output, outputs
        widths = [inputs, *[hidden] * layers, outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, inputs) to (n, outputs)."""
        weights: list[Tensor] = [layer.weight for layer in self.layers]  # type: ignore[misc]
        biases: list[Tensor] = [layer.bias for layer in self.layers]  # type: ignore[misc]
        result = mlp(features, weights, biases)
        return result.sigmoid() if self.output == "sigmoid" else result


class HashField(nn.Module):
    """A function of space: hash-grid encoding, then a decoder. Points in [-1, 1]^d give `outputs` values each."""

    def __init__(self, grid: HashEncoding, outputs: int, hidden: int = 64, layers: int = 2, output: Output = "sigmoid"):
        super().__init__()
        self.grid = grid
        self.decoder = Decoder(grid.layout.width, outputs, hidden, layers, output)

    def forward(self, points: Tensor) -> Tensor:
        """Evaluate `points` (n, d); returns (n, outputs)."""
        values: Tensor = self.decoder(self.grid(points))
        return values

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
