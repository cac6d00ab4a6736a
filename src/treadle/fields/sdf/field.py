"""A signed distance field, learnt: a grid and a decoder, with colours and with a density where they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.decoder import Decoder, decoded
from treadle.fields.field import Field
from treadle.fields.gradients import gradient
from treadle.fields.grid import Grid
from treadle.fields.siren import Siren

_PACE = 10.0  # as in NeuS: what is learnt is a tenth of the logarithm, which so learns as fast as all the rest

CHUNK = 65536
"""Points evaluated at a time where no gradient is kept."""


class SDFField(Field):
    """Distances from a surface in [-1, 1]^3, negative inside.

    Channels: "sdf"; "color" (sRGB from 0 to 1), where it is learnt; and "density", so that a tracer of densities sees
    the surface too: s * sigmoid(-s * sdf), what NeuS (Wang et al. 2021, https://arxiv.org/abs/2106.10689, equation 10)
    gives for a ray that meets the surface head on, with a learnt sharpness s.

    Args:
        grid: encodes points.
        decoder: from the grid's features to 1 value, or 4 with colours; linear at its end.
        ball: what the field says is added to the distance from a ball of this radius; 0 adds nothing. What is learnt
            from photographs alone has to begin as something with an inside.
        sharpness: what s begins with, in 1/length.

    Attributes:
        to_input: (4, 4) float64, a buffer: from its coordinates to those of the mesh that it was trained on.
    """

    to_input: Tensor

    def __init__(self, grid: Grid, decoder: Decoder | Siren, *, ball: float = 0.0, sharpness: float = 20.0) -> None:
        super().__init__()
        if decoder.outputs not in (1, 4) or getattr(decoder, "output", "none") != "none":
            raise UsageError(
                f"a distance field needs a linear decoder with 1 output, or 4 with colours, not {decoder.outputs}"
            )
        self.grid, self.decoder, self.ball = grid, decoder, ball
        self.colored = decoder.outputs == 4
        self.log_sharpness = nn.Parameter(torch.tensor(float(sharpness)).log() / _PACE)
        self.channels = {"sdf": 1, "density": 1} | ({"color": 3} if self.colored else {})
        self.register_buffer("to_input", torch.eye(4, dtype=torch.float64))

    @property
    def levels(self) -> int:
        """Levels of detail."""
        return self.grid.levels

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> Mapping[str, Tensor]:
        """The channels at `points` (n, 3)."""
        values = decoded(self.grid, self.decoder, points, lod)
        distance = values[:, :1]
        if self.ball:
            distance = distance + (points.norm(dim=1, keepdim=True) - self.ball)
        wanted = self.channels if channels is None else channels
        found = {"sdf": distance}
        if "density" in wanted:
            found["density"] = self.density_of(distance)
        if self.colored and "color" in wanted:
            found["color"] = values[:, 1:].sigmoid()
        return found

    def density(self, points: Tensor, lod: int | None = None) -> Tensor:
        """The density at `points` (n, 3): (n,), in 1/length; what an occupancy grid asks for."""
        return self(points, None, ("density",), lod)["density"][:, 0]

    def density_of(self, distance: Tensor) -> Tensor:
        """The density where the field has these distances, of the same shape, in 1/length."""
        sharpness = self.sharpness
        return sharpness * (-sharpness * distance).sigmoid()

    @property
    def sharpness(self) -> Tensor:
        """s, a scalar: within some 4/s of the surface it is neither clear nor opaque."""
        return (_PACE * self.log_sharpness).exp()

    @torch.no_grad()
    def evaluate(self, points: Tensor, channel: str = "sdf", lod: int | None = None) -> Tensor:
        """A channel at `points` (n, 3) without gradient, in chunks, in float32."""
        device = self.to_input.device
        parts = [self(part.to(device), None, (channel,), lod)[channel].float() for part in points.split(CHUNK)]
        return torch.cat(parts) if parts else points.new_empty(0, self.channels[channel])

    def normals(self, points: Tensor, step: float = 0.005) -> Tensor:
        """(n, 3) directions of steepest ascent at `points` (n, 3), by central differences of `step`, of unit length."""
        return torch.nn.functional.normalize(self.gradients(points, step), dim=1)

    def gradients(self, points: Tensor, step: float, lod: int | None = None) -> Tensor:
        """(n, 3) gradients of "sdf" by central differences, which have gradients to the parameters themselves."""
        return gradient(lambda places: self(places, None, ("sdf",), lod)["sdf"], points, step)
