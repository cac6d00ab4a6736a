"""What a network that follows lines is: all points of many lines at once in training, point by point in tracking."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class LineModel(nn.Module, ABC):
    """From the features and past directions at the points of lines to `width` numbers at each point.

    Causal: what comes out at a point depends on this and earlier points of its line alone, so that `forward` over whole
    lines and `advance` point by point say the same.
    """

    inputs: int
    """Features per point."""
    width: int
    """Numbers per point that come out."""

    @abstractmethod
    def forward(self, features: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
        """Follow whole lines.

        Args:
            features: (p, inputs) float32.
            previous: (p, 3) float32: the step, in mm, that led to each point; 0 at a line's first point.
            offsets: (n + 1,) int64, on the CPU: line k has the rows `offsets[k]:offsets[k + 1]`.

        Returns:
            (p, width) float32.
        """

    @abstractmethod
    def start(self, count: int) -> Any:
        """The state of `count` lines before their first point."""

    @abstractmethod
    def advance(self, state: Any, features: Tensor, previous: Tensor) -> tuple[Tensor, Any]:
        """Follow n lines by one point: features (n, inputs) and previous (n, 3) there -> (n, width), the new state."""

    @abstractmethod
    def keep(self, state: Any, indices: Tensor) -> Any:
        """The state of the lines `indices` (k,) int64 alone, in that order."""
