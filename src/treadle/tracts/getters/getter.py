"""What a direction getter is: a head, a loss, and the directions that are read from what the head says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from treadle.errors import UsageError


class DirectionGetter(nn.Module, ABC):
    """Reads directions from what a model says, `parameters` (n, k) float32.

    Random numbers are given, never drawn, so a line does not depend on the lines tracked beside it.
    """

    name: ClassVar[str]
    uniforms: ClassVar[int] = 0
    """Random numbers that a sampled direction takes; 0: this getter cannot be sampled."""
    ends: bool
    """Whether it learns where lines end (EOS)."""

    @abstractmethod
    def forward(self, outputs: Tensor) -> Tensor:
        """The head: outputs (n, width) of a model -> parameters (n, k)."""

    @abstractmethod
    def about(self, parameters: Tensor, directions: Tensor) -> Tensor:
        """Read `parameters` as said about a direction that is known, instead of about nothing.

        Parameters of 0 then say that direction, and a network has to learn no more than where lines leave it.

        Args:
            parameters: (n, k), of the head.
            directions: (n, 3), in mm; where one is 0, nothing is known.

        Returns:
            (n, k): parameters for `loss` and the others.
        """

    @abstractmethod
    def loss(self, parameters: Tensor, targets: Tensor, last: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is wrong about each point.

        Args:
            parameters: (n, k).
            targets: (n, 3), in mm; the row of an end is ignored.
            last: (n,) bool: where lines end; all False for a getter that does not learn ends.

        Returns:
            The direction's loss (d,) at the points that have a direction (those of `~last`, in order; classes with an
            end class give (n,)), and the end's loss (n,) times its weight, None where it has none of its own. A batch's
            loss is the sum of their means.
        """

    @abstractmethod
    def direction(self, parameters: Tensor) -> Tensor:
        """The likeliest direction: (n, 3), of length 1."""

    def sample(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """A direction drawn from the distribution: (n, 3), of length 1.

        Args:
            parameters: (n, k).
            uniforms: (n, `self.uniforms`) in (0, 1): the randomness.

        Raises:
            UsageError: this getter says one direction, and how likely others are it does not.
        """
        raise UsageError(f"the direction getter {self.name!r} says one direction: it cannot be sampled")

    def end(self, parameters: Tensor) -> Tensor:
        """How likely a line ends at the point: (n,) from 0 to 1; 0 for a getter that does not learn ends."""
        return parameters.new_zeros(len(parameters))

    def given(self, uniforms: Tensor) -> Tensor:
        """`uniforms`, once their number is right."""
        if uniforms.shape[1:] != (self.uniforms,):
            raise UsageError(
                f"the direction getter {self.name!r} takes {self.uniforms} uniforms per point, "
                f"got the shape {tuple(uniforms.shape)}"
            )
        return uniforms
