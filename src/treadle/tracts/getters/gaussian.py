"""A Gaussian around the next step, or several."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from treadle.tracts.directions import unit
from treadle.tracts.getters.continuous import ContinuousGetter
from treadle.tracts.getters.drawing import component


class GaussianGetter(ContinuousGetter):
    """A mean, and the logarithm of a standard deviation along each axis: 6 numbers.

    The loss is -log N(t; mu, diag sigma^2) less `entropy_weight` times the Gaussian's entropy: what is rewarded keeps
    sigmas from collapsing.
    """

    name: ClassVar[str] = "gaussian"
    uniforms: ClassVar[int] = 3

    def __init__(
        self,
        width: int,
        *,
        dropout: float = 0.0,
        ends: bool = False,
        end_weight: float = 1.0,
        normalize_targets: float | None = None,
        entropy_weight: float = 0.0,
    ) -> None:
        """See `ContinuousGetter`."""
        super().__init__(width, [3, 3], dropout=dropout, ends=ends, end_weight=end_weight)
        self.normalize_targets, self.entropy_weight = normalize_targets, entropy_weight

    def about(self, parameters: Tensor, directions: Tensor) -> Tensor:
        """The known direction is added to the mean; see `DirectionGetter.about`."""
        return functional.pad(self.scaled(directions), (0, parameters.shape[1] - 3)) + parameters

    def errors(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """(d,), see above."""
        log_sigmas = parameters[:, 3:6]
        found = -log_density(targets, parameters[:, :3], log_sigmas)
        if self.entropy_weight:
            entropy = 1.5 * (1 + math.log(2 * math.pi)) + log_sigmas.sum(dim=1)
            found = found - self.entropy_weight * entropy
        return found

    def direction(self, parameters: Tensor) -> Tensor:
        """The mean's, (n, 3)."""
        return unit(parameters[:, :3])

    def sample(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Of a step drawn from the Gaussian, (n, 3)."""
        normals = torch.special.ndtri(self.given(uniforms))
        return unit(parameters[:, :3] + parameters[:, 3:6].exp() * normals)


class GaussianMixtureGetter(ContinuousGetter):
    """Some Gaussians: logits of their shares, means and logarithms of standard deviations, 7 numbers each.

    The loss is -logsumexp_k(log pi_k + log N_k).
    """

    name: ClassVar[str] = "gaussian-mixture"
    uniforms: ClassVar[int] = 4

    def __init__(
        self,
        width: int,
        *,
        dropout: float = 0.0,
        ends: bool = False,
        end_weight: float = 1.0,
        normalize_targets: float | None = None,
        mixtures: int = 3,
    ) -> None:
        """See `ContinuousGetter`; there are `mixtures` Gaussians."""
        sizes = [mixtures, 3 * mixtures, 3 * mixtures]
        super().__init__(width, sizes, dropout=dropout, ends=ends, end_weight=end_weight)
        self.normalize_targets, self.mixtures = normalize_targets, mixtures

    def about(self, parameters: Tensor, directions: Tensor) -> Tensor:
        """The known direction is added to every mean; see `DirectionGetter.about`."""
        known = self.scaled(directions).repeat(1, self.mixtures)
        after = parameters.shape[1] - 4 * self.mixtures
        return functional.pad(known, (self.mixtures, after)) + parameters

    def errors(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """(d,), see above."""
        logits, means, log_sigmas = self._parts(parameters)
        return -torch.logsumexp(logits.log_softmax(1) + log_density(targets[:, None], means, log_sigmas), dim=1)

    def direction(self, parameters: Tensor) -> Tensor:
        """That of the mean of the Gaussian with the largest share, (n, 3)."""
        logits, means, _ = self._parts(parameters)
        return unit(_of(means, logits.argmax(1)))

    def sample(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Of a step drawn from a Gaussian that is drawn by the shares, (n, 3)."""
        logits, means, log_sigmas = self._parts(parameters)
        drawn = component(logits, self.given(uniforms)[:, 0])
        normals = torch.special.ndtri(uniforms[:, 1:])
        return unit(_of(means, drawn) + _of(log_sigmas, drawn).exp() * normals)

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, k), means (n, k, 3) and logarithms of standard deviations (n, k, 3)."""
        logits, means, log_sigmas = parameters[:, : 7 * self.mixtures].split(
            [self.mixtures, 3 * self.mixtures, 3 * self.mixtures], dim=1
        )
        return logits, means.unflatten(1, (self.mixtures, 3)), log_sigmas.unflatten(1, (self.mixtures, 3))


def log_density(points: Tensor, means: Tensor, log_sigmas: Tensor) -> Tensor:
    """Logarithm of the density of independent Gaussians: (..., 3) each, broadcast -> (...)."""
    scaled = (points - means) * (-log_sigmas).exp()
    return -0.5 * scaled.square().sum(-1) - log_sigmas.sum(-1) - 1.5 * math.log(2 * math.pi)


def _of(values: Tensor, chosen: Tensor) -> Tensor:
    """From values (n, k, 3), those of the chosen k of each row, (n, 3)."""
    return values[torch.arange(len(values), device=values.device), chosen]
