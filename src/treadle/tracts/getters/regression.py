"""One direction, and no more: the cosine, the distance, or both."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from treadle.tracts.directions import unit
from treadle.tracts.getters.continuous import ContinuousGetter


class RegressionGetter(ContinuousGetter):
    """Says a direction (and an end); cannot be sampled."""

    def __init__(
        self,
        width: int,
        *,
        dropout: float = 0.0,
        ends: bool = False,
        end_weight: float = 1.0,
        normalize_targets: float | None = None,
    ) -> None:
        """See `ContinuousGetter`; the cosine does not depend on `normalize_targets`."""
        super().__init__(width, [3], dropout=dropout, ends=ends, end_weight=end_weight)
        self.normalize_targets = normalize_targets

    def about(self, parameters: Tensor, directions: Tensor) -> Tensor:
        """The direction that is said is added to the known one; see `DirectionGetter.about`."""
        return functional.pad(self.scaled(directions), (0, parameters.shape[1] - 3)) + parameters

    def direction(self, parameters: Tensor) -> Tensor:
        """What is said, (n, 3), of length 1."""
        return unit(parameters[:, :3])


class CosineGetter(RegressionGetter):
    """1 - cos of the angle between what is said and the target."""

    name: ClassVar[str] = "cosine"

    def about(self, parameters: Tensor, directions: Tensor) -> Tensor:
        """The same, with a known direction of length 1: lengths mean nothing here."""
        return super().about(parameters, unit(directions))

    def errors(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """1 - o.t / (|o| |t|), (d,)."""
        return _cosine(parameters, targets)


class L2Getter(RegressionGetter):
    """The distance between what is said and the target, in mm unless targets are normalised."""

    name: ClassVar[str] = "l2"

    def errors(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """|o - t|, (d,)."""
        return _distance(parameters, targets)


class CosineL2Getter(RegressionGetter):
    """The sum of both."""

    name: ClassVar[str] = "cosine-l2"

    def errors(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """1 - cos + |o - t|, (d,)."""
        return _cosine(parameters, targets) + _distance(parameters, targets)


def _cosine(said: Tensor, targets: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(said[:, :3], targets, dim=1)


def _distance(said: Tensor, targets: Tensor) -> Tensor:
    return (said[:, :3] - targets).norm(dim=1)
