"""Drawing from distributions by given uniforms: inverse transforms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from treadle.tracts.directions import frame


def component(logits: Tensor, uniforms: Tensor) -> Tensor:
    """A class for each row of logits (n, k), with the probabilities of their softmax: (n,) int64.

    `uniforms` (n,) are in (0, 1).
    """
    upto = (logits - logits.amax(1, keepdim=True)).exp().cumsum(1)
    drawn = torch.searchsorted(upto, (uniforms[:, None] * upto[:, -1:]).contiguous(), right=True)[:, 0]
    return drawn.clamp_max(logits.shape[1] - 1)


def around(means: Tensor, kappas: Tensor, uniforms: Tensor) -> Tensor:
    """Directions (n, 3) from Fisher - von Mises distributions.

    In three dimensions the cosine to the mean has a closed inverse: Jakob, Numerically stable sampling of the von
    Mises-Fisher distribution on S^2 (2012).

    Args:
        means: (n, 3), of length 1.
        kappas: (n,), how narrow each is; 0 is uniform.
        uniforms: (n, 2) in (0, 1).
    """
    kappas = kappas.clamp_min(1e-6)
    cosine = 1 + torch.log1p((1 - uniforms[:, 0]) * torch.expm1(-2 * kappas)) / kappas
    cosine = cosine.clamp(-1, 1)
    sine = ((1 - cosine) * (1 + cosine)).sqrt()
    angle = 2 * math.pi * uniforms[:, 1]
    first, second = frame(means)
    return cosine[:, None] * means + (sine * angle.cos())[:, None] * first + (sine * angle.sin())[:, None] * second
