"""What direction getters share that say where a line goes by numbers, and where it ends by a number of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from treadle.tracts.directions import unit
from treadle.tracts.getters.getter import DirectionGetter


def head(width: int, outputs: int, dropout: float) -> nn.Sequential:
    """Two layers with ReLU and dropout between, width -> width / 2 -> outputs, as dwi_ml's getters have."""
    half = -(-width // 2)
    return nn.Sequential(nn.Linear(width, half), nn.ReLU(), nn.Dropout(dropout), nn.Linear(half, outputs))


class ContinuousGetter(DirectionGetter):
    """A head for each kind of number; where ends are learnt, the first one also says, last of all, a line's end.

    The end's loss is the binary cross-entropy over all points. The direction's is taken where there is one: dwi_ml
    takes it at ends, too, where the target is 0 (a constant 1 for the cosine, a pull to 0 for L2).
    """

    normalize_targets: float | None = None
    """The length that targets are brought to; None: as they are, in mm."""

    def __init__(self, width: int, sizes: Sequence[int], *, dropout: float, ends: bool, end_weight: float) -> None:
        """
        Args:
            width: numbers per point that the model says.
            sizes: numbers that each head makes, without the end.
            dropout: the share of a head's hidden numbers that are 0, in training.
            ends: whether to learn where lines end.
            end_weight: what the end's loss is multiplied by.
        """
        super().__init__()
        self.ends, self.end_weight, self.size = ends, end_weight, sizes[0]
        counts = [sizes[0] + ends, *sizes[1:]]
        self.heads = nn.ModuleList(head(width, count, dropout) for count in counts)

    def forward(self, outputs: Tensor) -> Tensor:
        """(n, width) -> (n, k): what the heads say, then the end."""
        first, *others = (each(outputs) for each in self.heads)
        return torch.cat([first[:, : self.size], *others, first[:, self.size :]], dim=1)

    def loss(self, parameters: Tensor, targets: Tensor, last: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `DirectionGetter.loss`."""
        if not self.ends:
            return self.errors(parameters, self.scaled(targets)), None
        going = ~last
        said = parameters[:, -1]
        end = functional.binary_cross_entropy_with_logits(said, last.to(said), reduction="none")
        return self.errors(parameters[going], self.scaled(targets[going])), self.end_weight * end

    @abstractmethod
    def errors(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """(d,): what is wrong about directions, from parameters (d, k) and targets (d, 3)."""

    def scaled(self, directions: Tensor) -> Tensor:
        """Directions (n, 3) as long as targets are to be."""
        return directions if self.normalize_targets is None else unit(directions) * self.normalize_targets

    def end(self, parameters: Tensor) -> Tensor:
        """How likely a line ends: (n,)."""
        return parameters[:, -1].sigmoid() if self.ends else super().end(parameters)
