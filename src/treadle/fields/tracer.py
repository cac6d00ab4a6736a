"""What every tracer is: a field and rays in, the channels along each ray out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as member

import torch
from torch import Tensor, nn

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
