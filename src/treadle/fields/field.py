"""What every field is: places (and directions) in, named channels out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class Field(nn.Module):
    """A function of space that says which channels it has; a tracer makes pictures of any of them.

    Attributes:
        channels: the name of each channel, and how many values it has at a point. Tracers look for "density" (1/length)
            or "sdf" (a length, negative inside), whichever is theirs; "color" is 3 values from 0 to 1.

    Example:
        class Ball(Field):
            channels = {"sdf": 1, "color": 3}

            def forward(self, points, directions=None, channels=None, lod=None):
                distance = points.norm(dim=1, keepdim=True) - 0.5
                return {"sdf": distance, "color": points / 2 + 0.5}
    """

    channels: Mapping[str, int]

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> Mapping[str, Tensor]:
        """The channels at `points`, each (n, its width).

        Args:
            points: (n, 3) places.
            directions: (n, 3) unit vectors along which they are seen, for channels that look different from elsewhere.
            channels: which are needed: others may be left out. None asks for all.
            lod: the finest level of detail that counts; None takes all.
        """
        raise NotImplementedError(
            f"{type(self).__name__} is a Field without forward(points, directions, channels, lod)"
        )
