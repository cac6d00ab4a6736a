"""The torch reference of `volume`: all rays side by side, padded to the longest, differentiable by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def composite_reference(
    density: Tensor, values: Tensor, distances: Tensor, deltas: Tensor, starts: Tensor, stop: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `volume.composite`, of any dtype and on any device: sums, opacity, distance, weights, distortion."""
    rays, counts = len(starts) - 1, starts.diff()
    longest = int(counts.max()) if rays else 0
    which = torch.repeat_interleave(torch.arange(rays, device=density.device), counts)
    place = torch.arange(len(density), device=density.device) - starts[:-1][which]

    def padded(packed: Tensor) -> Tensor:
        return packed.new_zeros(rays, longest, *packed.shape[1:]).index_put((which, place), packed)

    depths = padded(density * deltas)
    before = torch.exp(-(depths.cumsum(1) - depths))
    weights = torch.where(before.detach() < stop, 0, before * -torch.expm1(-depths))
    sums = torch.einsum("rs,rsc->rc", weights, padded(values))
    opacity, t = weights.sum(1), padded(distances)
    seen = opacity > 1e-10
    distance = torch.where(seen, (weights * t).sum(1) / torch.where(seen, opacity, 1), 0)
    apart = (t[:, :, None] - t[:, None, :]).abs()
    distortion = torch.einsum("ri,rj,rij->r", weights, weights, apart) + (weights**2 * padded(deltas)).sum(1) / 3
    return sums, opacity, distance, weights[which, place], distortion
