"""Seeing a field of two dimensions: it is a picture that stands in space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.fields.field import Field
from treadle.fields.rays import Rays
from treadle.fields.tracer import Traced, Tracer, declared, over


class ImageSampler(Tracer):
    """A field over [-1, 1]^2 as a picture in the plane z = 0: where a ray meets it, the field is asked at x and y.

    Rays through the pixels of a picture of any size are those of `pixels`; a camera's see it in perspective.
    """

    @staticmethod
    def pixels(height: int, width: int, device: torch.device | str = "cpu") -> Rays:
        """Parallel rays through the centres of a picture's pixels, row by row, downwards as y grows: height * width."""
        if height < 1 or width < 1:
            raise UsageError(f"cannot sample {height} x {width} pixels: both sides must be at least 1")
        y = (2 * torch.arange(height, device=device) + 1) / height - 1
        x = (2 * torch.arange(width, device=device) + 1) / width - 1
        places = torch.stack(
            (x.repeat(height), y.repeat_interleave(width), -torch.ones(height * width, device=device)), 1
        )
        return Rays(places, torch.tensor([0.0, 0.0, 1.0], device=device).expand_as(places))

    def forward(
        self,
        field: Field,
        rays: Rays,
        channels: Sequence[str] = ("color",),
        *,
        background: Tensor | None = None,
        generator: torch.Generator | None = None,
        lod: int | None = None,
    ) -> Traced:
        """See `Tracer.forward`; points are (n, 2) here."""
        names = declared(field, next(iter(field.channels)), channels)
        along = -rays.origins[:, 2] / rays.directions[:, 2]
        points = rays.origins[:, :2] + along[:, None] * rays.directions[:, :2]
        inside = (along >= 0) & (along < torch.inf) & (points.abs() <= 1).all(1)
        found = field(torch.where(inside[:, None], points, 0), rays.directions, names, lod)
        shown = {name: torch.where(inside[:, None], found[name], 0) for name in names}
        opacity = inside.to(points.dtype)
        if "color" in shown:
            shown["color"] = over(shown["color"], opacity, background)
        return Traced(shown, torch.where(inside, along, 0), opacity, len(points))
