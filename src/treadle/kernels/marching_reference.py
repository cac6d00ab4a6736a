"""The torch reference of `marching`: every step of every ray is looked at, and every plane between cells is crossed."""

from __future__ import annotations

import torch
from torch import Tensor


def cascade_of(points: Tensor, cascades: int) -> Tensor:
    """(n,) the finest cascade that holds each of `points` (n, 3); `cascades` where none does."""
    size = points.abs().amax(-1)
    halves = 2.0 ** torch.arange(cascades, device=points.device, dtype=points.dtype)
    return torch.searchsorted(halves, size.contiguous())


def cell_of(points: Tensor, cascades: int, side: int) -> Tensor:
    """(n,) the place of each point's cell in the flattened (cascades, side, side, side) grid; -1 outside."""
    cascade = cascade_of(points, cascades)
    half = 2.0 ** cascade.to(points.dtype)
    cells = ((points / half[..., None] + 1) * (side / 2)).floor().long().clamp(0, side - 1)
    flat = ((cascade * side + cells[..., 0]) * side + cells[..., 1]) * side + cells[..., 2]
    return torch.where(cascade < cascades, flat, -1)


def box_ends(origins: Tensor, directions: Tensor, half: float, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the box [-half, half]^3, between `near` and `far`; inf and -inf where never."""
    a, b = (-half - origins) / directions, (half - origins) / directions
    flat, beside = directions == 0, origins.abs() > half
    low = torch.where(flat, torch.where(beside, torch.inf, -torch.inf), torch.minimum(a, b)).amax(1)
    high = torch.where(flat, torch.where(beside, -torch.inf, torch.inf), torch.maximum(a, b)).amin(1)
    low, high = torch.maximum(low, near), torch.minimum(high, far)
    missed = ~(low < high) | (high == torch.inf)
    return torch.where(missed, torch.inf, low), torch.where(missed, -torch.inf, high)


def march_reference(
    origins: Tensor, directions: Tensor, occupied: Tensor, step: float, cone: float, jitter: Tensor, near: Tensor,
    far: Tensor, most: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `marching.march`, in float64 and on any device, step by step: starts, rays, distances, deltas.

    Within a step the next is as long as `step`, `cone` and the cells allow, solved as an integral over the distance, so
    that step i begins where i whole steps have passed.
    """
    cascades, side = occupied.shape[:2]
    dtype, device = origins.dtype, origins.device
    origins, directions, jitter, near, far = (x.double() for x in (origins, directions, jitter, near, far))
    ends = [box_ends(origins, directions, 2.0**k, near, far) for k in range(cascades)]
    legs: list[tuple[int, Tensor, Tensor]] = []
    for k in range(cascades - 1, 0, -1):
        hit = ends[k - 1][0] < ends[k - 1][1]
        legs.append((k, ends[k][0], torch.where(hit, ends[k - 1][0], ends[k][1])))
    legs.append((0, *ends[0]))
    for k in range(1, cascades):
        hit = ends[k - 1][0] < ends[k - 1][1]
        legs.append((k, torch.where(hit, ends[k - 1][1], torch.inf), ends[k][1]))
    passed = torch.zeros(len(origins), dtype=torch.float64, device=device)
    rays, places, steps = [], [], []
    for k, begin, end in legs:
        longest = max(step, 2.0 ** (k + 1) / side)
        there = begin < end
        low, high = torch.where(there, begin, 0.0), torch.where(there, end, 0.0)
        ahead = steps_to(high, step, cone, longest) - steps_to(low, step, cone, longest)
        first = (passed - jitter).ceil()
        count = torch.where(there, (passed + ahead - jitter).ceil() - first, 0).long().clamp(min=0)
        which = torch.repeat_interleave(torch.arange(len(origins), device=device), count)
        index = torch.arange(len(which), device=device) - (count.cumsum(0) - count)[which]
        wanted = (first + jitter - passed + steps_to(low, step, cone, longest))[which] + index
        t = steps_back(wanted, step, cone, longest)
        rays.append(which)
        places.append(t)
        steps.append((cone * t).clamp(step, longest))
        passed = passed + torch.where(there, ahead, 0.0)
    which, t, delta = torch.cat(rays), torch.cat(places), torch.cat(steps)
    order = torch.argsort(t, stable=True)
    order = order[torch.argsort(which[order], stable=True)]
    which, t, delta = which[order], t[order], delta[order]
    cells = cell_of(origins[which] + t[:, None] * directions[which], cascades, side)
    kept = (cells >= 0) & occupied.reshape(-1).bool()[cells.clamp(min=0)]
    which, t, delta = which[kept], t[kept], delta[kept]
    starts, which, t, delta = _packed(which, len(origins), most, t.to(dtype), delta.to(dtype))
    return starts, which, t, delta


def steps_to(t: Tensor, step: float, cone: float, longest: float) -> Tensor:
    """The integral of 1 / (step at t) from 0."""
    if cone == 0:
        return t / step
    a, b = step / cone, longest / cone
    grown = (t.clamp(a, b) / a).log() / cone
    return t.clamp(max=a) / step + grown + (t - b).clamp(min=0) / longest


def steps_back(s: Tensor, step: float, cone: float, longest: float) -> Tensor:
    """The t for which `steps_to` is s."""
    if cone == 0:
        return s * step
    a, b = step / cone, longest / cone
    middle = (torch.tensor(b / a, dtype=s.dtype).log() / cone).to(s)
    rest = s - 1 / cone
    grown = a * (rest.clamp(min=0).minimum(middle) * cone).exp()
    return torch.where(rest <= 0, s * step, grown + (rest - middle).clamp(min=0) * longest)


def raytrace_reference(
    origins: Tensor, directions: Tensor, occupied: Tensor, near: Tensor, far: Tensor, merged: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `marching.raytrace`, by sorting the crossings with all planes: starts, rays, cells, entries and exits."""
    cascades, side = occupied.shape[:2]
    dtype, device = origins.dtype, origins.device
    origins, directions, near, far = (x.double() for x in (origins, directions, near, far))
    low, high = box_ends(origins, directions, 2.0 ** (cascades - 1), near, far)
    missed = ~(low < high)
    low, high = torch.where(missed, 0.0, low), torch.where(missed, 0.0, high)
    planes = torch.cat([2.0**k * torch.linspace(-1, 1, side + 1, dtype=torch.float64) for k in range(cascades)])
    crossings = (planes.to(device) - origins[:, :, None]) / directions[:, :, None]
    crossings = torch.where(directions[:, :, None] == 0, low[:, None, None], crossings).flatten(1)
    crossings = crossings.clamp(low[:, None], high[:, None])
    edges = torch.cat((low[:, None], crossings, high[:, None]), 1).sort(1).values
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    cells = cell_of(origins[:, None] + middle[..., None] * directions[:, None], cascades, side)
    inside = (cells >= 0) & occupied.reshape(-1).bool()[cells.clamp(min=0)]
    kept = inside & (edges[:, 1:] - edges[:, :-1] > 1e-12) & ~missed[:, None]
    which, place = torch.nonzero(kept, as_tuple=True)
    entries, exits, cells = edges[which, place], edges[which, place + 1], cells[which, place]
    new = torch.ones_like(which, dtype=torch.bool)
    adjoin = (which[1:] == which[:-1]) & (entries[1:] - exits[:-1] <= 1e-12)
    new[1:] = ~(adjoin if merged else adjoin & (cells[1:] == cells[:-1]))
    last = torch.ones_like(new)
    last[:-1] = new[1:]
    starts, rays, cells, entries = _packed(which[new], len(origins), len(which) + 1, cells[new], entries[new].to(dtype))
    return starts, rays, cells, entries, exits[last].to(dtype)


def _packed(which: Tensor, rays: int, most: int, *columns: Tensor) -> tuple[Tensor, ...]:
    """Starts, rays and columns of what is sorted by ray, at most `most` of each."""
    counts = torch.bincount(which, minlength=rays)
    place = torch.arange(len(which), device=which.device) - (counts.cumsum(0) - counts)[which]
    kept = place < most
    starts = torch.zeros(rays + 1, dtype=torch.int64, device=which.device)
    starts[1:] = counts.clamp(max=most).cumsum(0)
    return starts, which[kept], *(column[kept] for column in columns)
