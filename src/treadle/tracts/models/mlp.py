"""A perceptron at each point by itself: what it sees is there, and the last few directions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.tracts.models.model import LineModel
from treadle.tracts.models.previous import PreviousDirections


class Perceptron(LineModel):
    """Layers with ReLU and dropout over the features and previous directions of a point.

    It remembers no more than those directions. As a residual (see `DirectionModel`) it says how a line leaves the
    direction that it came by.
    """

    def __init__(
        self,
        inputs: int,
        embed: nn.Module,
        embedded: int,
        previous: PreviousDirections,
        *,
        sizes: Sequence[int] = (100, 100),
        dropout: float = 0.0,
    ) -> None:
        """
        Args:
            inputs: features per point.
            embed: from (n, inputs) to (n, embedded).
            embedded: what `embed` makes.
            previous: what is seen of earlier directions.
            sizes: the width of each layer.
            dropout: the share of numbers that are 0 after each layer, in training.

        Raises:
            UsageError: there is nothing to see, neither features nor previous directions.
        """
        super().__init__()
        widths = [embedded + previous.width, *sizes]
        if widths[0] == 0:
            raise UsageError("the mlp sees nothing: give it a volume, or previous_directions of 1 or more")
        self.inputs, self.embed, self.previous, self.width = inputs, embed, previous, sizes[-1]
        layers = [(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)) for before, after in pairwise(widths)]
        self.layers = nn.Sequential(*(part for layer in layers for part in layer))

    def forward(self, features: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
        """(p, width) of whole lines; see `LineModel.forward`."""
        seen = torch.cat([self.embed(features), self.previous(previous, offsets)], dim=1)
        return self.layers(seen)

    def start(self, count: int) -> Tensor:
        """The state of `count` lines before their first point: what is remembered of their directions."""
        return self.previous.start(count)

    def advance(self, state: Tensor, features: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """One point on; see `LineModel.advance`."""
        directions, state = self.previous.advance(state, previous)
        return self.layers(torch.cat([self.embed(features), directions], dim=1)), state

    def keep(self, state: Tensor, indices: Tensor) -> Tensor:
        """The state of some of the lines, in the order of `indices`."""
        return state.index_select(0, indices)
