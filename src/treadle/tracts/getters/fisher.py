"""A Fisher - von Mises distribution over directions, or several: Gaussians of the sphere."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from treadle.tracts.directions import unit
from treadle.tracts.getters.continuous import ContinuousGetter
from treadle.tracts.getters.drawing import around, component

LARGEST = 20.0
"""The largest kappa, as in dwi_ml: a spread of about 16 degrees."""


class FisherGetter(ContinuousGetter):
    """A mean direction, of any length, and a, where kappa = 20 sigmoid(a): 4 numbers.

    The loss is the negative logarithm of the density.
    """

    name: ClassVar[str] = "fisher"
    uniforms: ClassVar[int] = 2

    def __init__(self, width: int, *, dropout: float = 0.0, ends: bool = False, end_weight: float = 1.0) -> None:
        """See `ContinuousGetter`."""
        super().__init__(width, [3, 1], dropout=dropout, ends=ends, end_weight=end_weight)

    def about(self, parameters: Tensor, directions: Tensor) -> Tensor:
        """The known direction, of length 1, is added to the mean; see `DirectionGetter.about`."""
        return functional.pad(unit(directions), (0, parameters.shape[1] - 3)) + parameters

    def errors(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """(d,), see above."""
        return -log_density(unit(targets), unit(parameters[:, :3]), parameters[:, 3])

    def direction(self, parameters: Tensor) -> Tensor:
        """The mean direction, (n, 3)."""
        return unit(parameters[:, :3])

    def sample(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Drawn from the distribution, (n, 3)."""
        return around(unit(parameters[:, :3]), LARGEST * parameters[:, 3].sigmoid(), self.given(uniforms))


class FisherMixtureGetter(ContinuousGetter):
    """Some such distributions: logits of their shares, mean directions and a's, 5 numbers each.

    The loss is -logsumexp_k(log pi_k + log of the k-th density).
    """

    name: ClassVar[str] = "fisher-mixture"
    uniforms: ClassVar[int] = 3

    def __init__(
        self, width: int, *, dropout: float = 0.0, ends: bool = False, end_weight: float = 1.0, mixtures: int = 3
    ) -> None:
        """See `ContinuousGetter`; there are `mixtures` distributions."""
        sizes = [mixtures, 3 * mixtures, mixtures]
        super().__init__(width, sizes, dropout=dropout, ends=ends, end_weight=end_weight)
        self.mixtures = mixtures

    def about(self, parameters: Tensor, directions: Tensor) -> Tensor:
        """The known direction, of length 1, is added to every mean; see `DirectionGetter.about`."""
        known = unit(directions).repeat(1, self.mixtures)
        after = parameters.shape[1] - 4 * self.mixtures
        return functional.pad(known, (self.mixtures, after)) + parameters

    def errors(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """(d,), see above."""
        logits, means, narrow = self._parts(parameters)
        return -torch.logsumexp(logits.log_softmax(1) + log_density(unit(targets)[:, None], means, narrow), dim=1)

    def direction(self, parameters: Tensor) -> Tensor:
        """The mean direction of the distribution with the largest share, (n, 3)."""
        logits, means, _ = self._parts(parameters)
        return means[torch.arange(len(means), device=means.device), logits.argmax(1)]

    def sample(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Drawn from a distribution that is drawn by the shares, (n, 3)."""
        logits, means, narrow = self._parts(parameters)
        rows = torch.arange(len(means), device=means.device)
        drawn = component(logits, self.given(uniforms)[:, 0])
        return around(means[rows, drawn], LARGEST * narrow[rows, drawn].sigmoid(), uniforms[:, 1:])

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, k), mean directions (n, k, 3) and a's (n, k)."""
        logits, means, narrow = parameters[:, : 5 * self.mixtures].split(
            [self.mixtures, 3 * self.mixtures, self.mixtures], dim=1
        )
        return logits, unit(means.unflatten(1, (self.mixtures, 3))), narrow


def log_density(points: Tensor, means: Tensor, narrow: Tensor) -> Tensor:
    """Logarithm of the density, by solid angle: directions (..., 3) of length 1 and a (...) -> (...).

    log kappa - log 2 pi - kappa - log(1 - e^(-2 kappa)) + kappa mu.t, with kappa = 20 sigmoid(a). The two logarithms
    that grow without bound as kappa falls are taken together: their sum tends to -log 2.
    """
    kappas = LARGEST * narrow.sigmoid()
    small = kappas < 1e-3
    safe = torch.where(small, torch.ones_like(kappas), kappas)
    together = torch.where(small, kappas - math.log(2), safe.log() - torch.log1p(-torch.exp(-2 * safe)))
    return together - math.log(2 * math.pi) - kappas + kappas * (points * means).sum(-1)
