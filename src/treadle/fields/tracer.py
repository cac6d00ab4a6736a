"""What every tracer is: a field and rays in, the channels along each ray out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as member

import torch
from torch import Tensor, nn

from treadle.errors import UsageError, nearest
from treadle.fields.field import Field
from treadle.fields.rays import Rays


@dataclass
class Traced:
    """What was seen along n rays.

    Attributes:
        channels: by name, (n, width) each.
        distance: (n,) how far along the ray what is seen is; 0 where nothing is.
        opacity: (n,) from 0 (nothing is seen) to 1.
        samples: how often the field was asked.
        extra: what else a tracer found on the way, such as "distortion" (n,).
    """

    channels: dict[str, Tensor]
    distance: Tensor
    opacity: Tensor
    samples: int
    extra: dict[str, Tensor] = member(default_factory=dict)


class Tracer(nn.Module):
    """How a field is seen along rays; what it needs to know of space (an acceleration structure) is part of it."""

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
        """Trace the channels of a field, all of them declared in `field.channels`.

        Args:
            field: what is seen.
            rays: along which.
            channels: which of its channels.
            background: (3,) or (n, 3), the colour where nothing is; black where None.
            generator: draws where samples lie (on the CPU); None places them the same way each time.
            lod: the finest level of detail that counts; None takes all.
        """
        raise NotImplementedError(f"{type(self).__name__} is a Tracer without forward(field, rays, channels)")


def declared(field: Field, needed: str, channels: Sequence[str]) -> list[str]:
    """`channels`, each once, if the field declares them and what a tracer cannot do without.

    Raises:
        UsageError: naming what it does not declare.
    """
    for name in (needed, *channels):
        if name not in field.channels:
            raise UsageError(f"{type(field).__name__} has no channel {name!r}{nearest(name, field.channels)}")
    return list(dict.fromkeys(channels))


def over(color: Tensor, opacity: Tensor, background: Tensor | None) -> Tensor:
    """`color` (n, 3), multiplied by its opacity (n,) already, before a background (3,) or (n, 3); black where None."""
    return color if background is None else color + (1 - opacity)[:, None] * background.to(color)
