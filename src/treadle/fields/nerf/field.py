"""The radiance field: a grid of features under two small decoders, one for density, one for colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from treadle.errors import UsageError, nearest
from treadle.fields.decoder import Decoder, decoded
from treadle.fields.field import Field
from treadle.fields.grid import Grid

Activation = Literal["exp", "softplus", "relu"]
"""How the first output of the density decoder becomes a density, which is never negative."""

GEOMETRY = 15
"""What the density decoder says beside the density, for the colour decoder."""
FREQUENCIES = 4
"""Octaves in which directions are encoded."""

_LARGEST = 15.0  # exponents: e^15 is opaque at any step there is
_SHIFT = -1.0


class NeRFField(Field):
    """Density and colour, from features of a grid: grid -> 64 -> 16; 15 of these and the direction -> 64 -> 64 -> 3.

    The layout of Instant NGP (Müller et al. 2022, https://arxiv.org/abs/2201.05989), with directions as sines and
    cosines of four octaves beside the direction itself, as in NeRF (https://arxiv.org/abs/2003.08934): 42 inputs.

    Args:
        grid: features over [-1, 1]^3.
        bound: points from -bound to bound, along each axis, are within the grid; those beyond are taken at its border.
        contracted: all of space is within the grid: what is farther from the middle than 1, in the largest of its
            coordinates, is drawn in to between 1 and 2 (mip-NeRF 360, https://arxiv.org/abs/2111.12077, with cubes in
            place of balls). Then `bound` is not needed.
        hidden: width of the decoders' hidden layers.
        layers: hidden layers of the colour decoder.
        activation: what makes a density of the decoder's output.
    """

    channels: Mapping[str, int] = {"density": 1, "color": 3}

    def __init__(
        self,
        grid: Grid,
        *,
        bound: float = 1.0,
        contracted: bool = False,
        hidden: int = 64,
        layers: int = 2,
        activation: Activation = "exp",
    ) -> None:
        super().__init__()
        if grid.dimensions != 3:
            raise UsageError(f"a radiance field needs a grid of 3 dimensions, not {grid.dimensions}")
        if activation not in get_args(Activation):
            raise UsageError(f"activation is {activation!r}{nearest(activation, get_args(Activation))}")
        if not bound > 0:
            raise UsageError(f"bound is {bound:g}: expected a number above 0")
        self.grid, self.bound, self.contracted, self.activation = grid, float(bound), contracted, activation
        self.geometry = Decoder(grid.width, 1 + GEOMETRY, hidden, 1, "none")
        self.color = Decoder(GEOMETRY + 3 * (1 + 2 * FREQUENCIES), 3, hidden, layers, "sigmoid")

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> Mapping[str, Tensor]:
        """Density (n, 1) in 1 / length and colour (n, 3) from 0 to 1 at `points` (n, 3), seen along `directions`.

        Colour alone is left out where `channels` does not name it, and then `directions` are not needed.
        """
        geometry = decoded(self.grid, self.geometry, self.placed(points), lod)
        found = {"density": as_density(geometry[:, :1], self.activation)}
        if channels is None or "color" in channels:
            if directions is None:
                raise UsageError("the colour of a radiance field depends on the direction: give directions")
            found["color"] = self.color(torch.cat([geometry[:, 1:], encoded_directions(directions)], 1))
        return found

    def density(self, points: Tensor, lod: int | None = None) -> Tensor:
        """The density alone at `points` (n, 3): (n,), in 1 / length."""
        return self(points, channels=("density",), lod=lod)["density"][:, 0]

    def placed(self, points: Tensor) -> Tensor:
        """`points` (n, 3) in the coordinates of the grid, from -1 to 1."""
        if self.contracted:
            return contracted(points) / 2
        return points if self.bound == 1 else points / self.bound

    def unplaced(self, places: Tensor) -> Tensor:
        """The way back from `placed`."""
        return expanded(places * 2) if self.contracted else places * self.bound

    def extra_repr(self) -> str:
        """What is not a module, for `print(module)`."""
        return f"{'contracted' if self.contracted else f'bound={self.bound:g}'}, activation={self.activation!r}"


def contracted(points: Tensor) -> Tensor:
    """All of space in [-2, 2]^3: points (n, 3) within [-1, 1]^3 stay, those beyond are drawn in along their direction.

    As in mip-NeRF 360, with the largest coordinate m in place of the length: x (2 - 1/m) / m.
    """
    largest = points.abs().amax(1, keepdim=True).clamp(min=1)
    return points * ((2 - 1 / largest) / largest)


def expanded(points: Tensor) -> Tensor:
    """The way back from `contracted`; points of [-2, 2]^3, of which the border is infinitely far away."""
    largest = points.abs().amax(1, keepdim=True).clamp(min=1)
    return points / (largest * (2 - largest).clamp(min=1e-6))


def encoded_directions(directions: Tensor) -> Tensor:
    """Directions (n, 3) with sines and cosines of 1, 2, 4 and 8 times their coordinates: (n, 27)."""
    sine, cosine = directions.sin(), directions.cos()
    parts = [directions, sine, cosine]
    for _ in range(FREQUENCIES - 1):
        # By the formulas for twice an angle: a sine costs as much as ten products.
        sine, cosine = 2 * sine * cosine, 1 - 2 * sine * sine
        parts += [sine, cosine]
    return torch.cat(parts, 1)


def as_density(raw: Tensor, activation: Activation) -> Tensor:
    """Densities, 0 or more, of any values."""
    if activation == "exp":
        return _Exp.apply(raw + _SHIFT)
    if activation == "softplus":
        return functional.softplus(raw + _SHIFT)
    return functional.relu(raw)


class _Exp(torch.autograd.Function):
    """The exponential, neither of which nor of whose gradient ever overflows (as instant-ngp's)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        result = values.clamp(max=_LARGEST).exp()
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        # Nor does it vanish: from a density of almost nothing there is a way back.
        return grad * result.clamp(min=3e-7)
