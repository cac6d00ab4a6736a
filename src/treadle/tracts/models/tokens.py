"""Previous directions as a transformer's tokens, with one of their own for the start of a line (SOS)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from treadle.tracts.directions import unit
from treadle.tracts.getters.sphere import sphere


class DirectionTokens(nn.Module):
    """The step that led to a point, embedded by a layer with ReLU.

    The start of a line is told by a label, a fourth coordinate that is 1 there and 0 elsewhere, or as a class: then
    directions are classes on a sphere, too, each with an embedding of its own.
    """

    vertices: Tensor

    def __init__(self, width: int, *, sos: Literal["label", "class"], normalize: bool, classes: int) -> None:
        """
        Args:
            width: numbers per point that come out.
            sos: see above.
            normalize: "label": whether directions are brought to length 1 before.
            classes: "class": directions of the sphere, see `getters.sphere`.
        """
        super().__init__()
        self.width, self.normalize, self.classes = width, normalize, classes if sos == "class" else 0
        self.embed = nn.Embedding(classes + 1, width) if sos == "class" else nn.Linear(4, width)
        vertices = torch.from_numpy(sphere(classes)).float() if sos == "class" else torch.empty(0, 3)
        self.register_buffer("vertices", vertices, persistent=False)

    def forward(self, previous: Tensor, first: Tensor) -> Tensor:
        """(n, width) from steps (n, 3) and whether each point begins its line, (n,) bool."""
        if self.classes:
            nearest = (previous @ self.vertices.to(previous).T).argmax(1).masked_fill(first, self.classes)
            return self.embed(nearest).relu()
        directions = unit(previous) if self.normalize else previous
        directions = directions.masked_fill(first[:, None], 0)
        return functional.relu(self.embed(torch.cat([directions, first[:, None].to(directions)], dim=1)))
