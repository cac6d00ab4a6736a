"""The torch reference of `volume`: all rays side by side, padded to the longest, differentiable by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def composite_reference(
    density: Tensor, values: Tensor, distances: Tensor, deltas: Tensor, starts: Tensor, stop: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `volume.composite`, of any dtype and on any device: sums, opacity, distance, weights, distortion."""
    where, rays = places(starts, len(density)), len(starts) - 1

    def padded(packed: Tensor) -> Tensor:
        return pad(packed, where, rays)

    depths = padded(density * deltas)
    before = light(depths)
    weights = torch.where(before.detach() < stop, 0, before * -torch.expm1(-depths))
    sums = torch.einsum("rs,rsc->rc", weights, padded(values))
    opacity, t = weights.sum(1), padded(distances)
    seen = opacity > 1e-10
    distance = torch.where(seen, (weights * t).sum(1) / torch.where(seen, opacity, 1), 0)
    apart = (t[:, :, None] - t[:, None, :]).abs()
    distortion = torch.einsum("ri,rj,rij->r", weights, weights, apart) + (weights**2 * padded(deltas)).sum(1) / 3
    return sums, opacity, distance, weights[where], distortion


def reached_reference(density: Tensor, deltas: Tensor, starts: Tensor, stop: float) -> Tensor:
    """As `volume.reached`, of any dtype and on any device."""
    where = places(starts, len(density))
    return light(pad(density * deltas, where, len(starts) - 1))[where] >= stop


def places(starts: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ray of each sample, and the place that it has on it."""
    rays = torch.arange(len(starts) - 1, device=starts.device)
    which = torch.repeat_interleave(rays, starts.diff(), output_size=count)
    return which, torch.arange(count, device=starts.device) - starts[:-1][which]


def pad(packed: Tensor, where: tuple[Tensor, Tensor], rays: int) -> Tensor:
    """(rays, longest, ...) of what is packed as (m, ...), zero behind the end of a ray."""
    longest = int(where[1].max()) + 1 if len(packed) else 0
    return packed.new_zeros(rays, longest, *packed.shape[1:]).index_put(where, packed)


def light(depths: Tensor) -> Tensor:
    """What is left before each sample of optical depths (rays, longest)."""
    return torch.exp(-(depths.cumsum(1) - depths))
