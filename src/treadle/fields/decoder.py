"""From features to values: a small perceptron."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.grid import Grid
from treadle.fields.grids.dense import DenseGrid
from treadle.fields.grids.hash import HashEncoding
from treadle.kernels.hashgrid import decode
from treadle.kernels.mlp import mlp

Output = Literal["sigmoid", "none"]


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
        return self.finish(mlp(features, *self.parts()))

    def parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases of the layers."""
        weights: list[Tensor] = [layer.weight for layer in self.layers]  # type: ignore[misc]
        biases: list[Tensor] = [layer.bias for layer in self.layers]  # type: ignore[misc]
        return weights, biases

    def finish(self, result: Tensor) -> Tensor:
        """What follows the last layer."""
        return result.sigmoid() if self.output == "sigmoid" else result


def decoded(grid: Grid, decoder: nn.Module, points: Tensor, lod: int | None = None) -> Tensor:
    """What a decoder makes of the features at `points` (n, d): (n, outputs), by a fused kernel where there is one.

    `decoder` is a `Decoder`, or any module from (n, grid.width) to (n, outputs), such as a `Siren`. A hash grid or a
    dense one under a `Decoder` is one kernel on a CPU, differentiable once: for second derivatives there is
    `kernels.hashgrid.decode_reference`.
    """
    if isinstance(grid, HashEncoding | DenseGrid) and type(decoder) is Decoder:
        (first, *others), biases = decoder.parts()
        used = first[:, : grid.used(lod) * grid.layout.features]
        found = decode(points.to(grid.table.dtype), grid.table, grid.layout, [used, *others], biases)
        return decoder.finish(found)
    values: Tensor = decoder(grid(points, lod))
    return values
