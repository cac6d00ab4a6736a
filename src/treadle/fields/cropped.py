"""A field of which a box is left: nothing is outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.fields.field import Field


class Cropped(Field):
    """A field within a box; where that cuts a solid open, its inside is seen.

    "sdf" is the distance from what is left (its lower bound outside), "density" is 0 outside; other channels are those
    of the field.

    Args:
        field: what is cut.
        box: (2, 3), lower and upper corner; infinite where nothing is cut.
    """

    def __init__(self, field: Field, box: NDArray[np.float64]) -> None:
        super().__init__()
        self.field, self.channels = field, field.channels
        self.register_buffer("box", torch.from_numpy(np.asarray(box, np.float32)), persistent=False)

    box: Tensor

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> Mapping[str, Tensor]:
        """The channels at `points` (n, 3)."""
        found = dict(self.field(points, directions, channels, lod))
        box = self.box.to(points)
        outside = torch.maximum(box[0] - points, points - box[1]).amax(1, keepdim=True)
        if "sdf" in found:
            found["sdf"] = torch.maximum(found["sdf"], outside)
        if "density" in found:
            found["density"] = torch.where(outside > 0, 0, found["density"])
        return found


def cropped(field: Field, box: NDArray[np.float64]) -> Field:
    """The field within a box; itself where nothing is cut."""
    return Cropped(field, box) if np.isfinite(box).any() else field
