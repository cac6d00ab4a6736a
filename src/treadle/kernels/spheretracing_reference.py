"""The torch reference of `spheretracing`: all rays at once."""

from __future__ import annotations

import torch
from torch import Tensor


def advance_reference(
    distances: Tensor, steps: Tensor, stretches: Tensor, hits: Tensor, alive: Tensor, sdf: Tensor, starts: Tensor,
    entries: Tensor, exits: Tensor, scale: float, close: float,
) -> Tensor:  # fmt: skip
    """As `spheretracing.advance`, in float64 and on any device."""
    here, stretch, end = distances[alive].double(), stretches[alive].clone(), starts[alive + 1]
    step = torch.maximum(scale * sdf.double(), entries[stretch].double() - here)
    there = here + step
    hit = (step.abs() < close) | ((step + steps[alive].double()).abs() < 10 * close)
    at_hit = torch.minimum(there, exits[stretch].double())
    while True:
        beyond = (stretch < end) & (there > exits[stretch.clamp(max=len(exits) - 1)].double())
        if not bool(beyond.any()):
            break
        stretch = stretch + beyond
    lost = stretch == end
    enter = entries[stretch.clamp(max=len(entries) - 1)].double()
    jumped = there < enter
    there, last = torch.where(jumped, enter, there), torch.where(jumped, torch.inf, step)
    hits[alive[hit]] = True
    distances[alive[hit]] = at_hit[hit].to(distances.dtype)
    stretches[alive[~hit]] = stretch[~hit]
    on = ~hit & ~lost
    distances[alive[on]], steps[alive[on]] = there[on].to(distances.dtype), last[on].to(steps.dtype)
    return alive[on]
