"""What says where lines go on: a trained model, a tensor's direction, or nothing but the line's own past."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor


class Propagator(ABC):
    """Says, for many lines at once, which direction leads on from the point that each has reached."""

    @abstractmethod
    def start(self, count: int) -> Any:
        """The state of `count` lines before their first point."""

    @abstractmethod
    def advance(self, state: Any, points: Tensor, previous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Go on by one point.

        Args:
            state: of n lines.
            points: (n, 3) float32: where they are, in voxel space with corner origin.
            previous: (n, 3) float32: the step in mm that led there, along the grid's axes; 0 at a seed.
            uniforms: (n, `self.uniforms`) in (0, 1): the randomness of this point.

        Returns:
            Directions (n, 3) of length 1 along the grid's axes in mm (0: there is none, the line ends here), how
            likely the line ends at this point (n,), and the new state.
        """

    @abstractmethod
    def keep(self, state: Any, indices: Tensor) -> Any:
        """The state of the lines `indices` (k,) int64 alone, in that order."""

    uniforms: int = 0
    """Random numbers per line and point; 0: it is deterministic."""
