"""SIREN: a perceptron of sines (Sitzmann et al. 2020, https://arxiv.org/abs/2006.09661)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from treadle.errors import UsageError


class Siren(nn.Module):
    """`inputs -> hidden x (1 + layers) -> outputs`, sin(omega (W x + b)) between, linear at the end.

    It stands where a decoder stands, over the points themselves (`PositionalGrid(None, 0)`), and can be differentiated
    any number of times: the Eikonal term may use autograd.

    Weights are uniform as in the paper (section 3.2): +-1/inputs in the first layer, whose omega spreads [-1, 1] over
    many periods, and +-sqrt(6/hidden)/omega in the others, so that activations have the same distribution in each.

    Attributes:
        outputs: values at a point.
        omega: the factor within every sine; the paper's is 30, smaller ones fit smoother functions.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 256, layers: int = 3, omega: float = 30.0) -> None:
        super().__init__()
        for name, value in (("inputs", inputs), ("outputs", outputs), ("hidden", hidden)):
            if value < 1:
                raise UsageError(f"siren: {name} is {value}: expected at least 1")
        if layers < 0:
            raise UsageError(f"siren: layers is {layers}: expected 0 or more")
        if not (math.isfinite(omega) and omega > 0):
            raise UsageError(f"siren: omega is {omega}: expected a number above 0")
        self.inputs, self.outputs, self.omega = inputs, outputs, omega
        widths = [inputs, *[hidden] * (1 + layers), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        with torch.no_grad():
            for number, layer in enumerate(self.layers):
                fan = widths[number]
                bound = 1 / fan if number == 0 else math.sqrt(6 / fan) / omega
                layer.weight.uniform_(-bound, bound)  # type: ignore[operator]

    def forward(self, points: Tensor) -> Tensor:
        """Map (n, inputs) to (n, outputs)."""
        for layer in self.layers[:-1]:
            points = torch.sin(self.omega * layer(points))
        values: Tensor = self.layers[-1](points)
        return values

    def extra_repr(self) -> str:
        """For `print(module)`."""
        return f"omega={self.omega:g}"
