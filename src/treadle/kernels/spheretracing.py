"""One step of sphere tracing (Hart 1996) for many rays: the field is asked elsewhere, between two steps.

On a CPU a compiled loop runs (`spheretracing_loops`), elsewhere the torch reference does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from treadle.kernels import threads
from treadle.kernels.marching import Intervals
from treadle.kernels.spheretracing_reference import advance_reference


class March(NamedTuple):
    """Where r rays are; changed in place.

    Attributes:
        distances: (r,) along the ray.
        steps: (r,) the last step; infinite before the first one, and after a jump.
        stretches: (r,) int64, which of the stretches in occupied cells each is in, or comes to next.
        hits: (r,) bool, whether it has arrived at the surface.
    """

    distances: Tensor
    steps: Tensor
    stretches: Tensor
    hits: Tensor

    @classmethod
    def begin(cls, stretches: Intervals) -> tuple[March, Tensor]:
        """All rays where they enter their first stretch, and the numbers of those that have one."""
        starts = stretches.starts
        alive = torch.nonzero(starts.diff())[:, 0]
        distances = stretches.entries.new_zeros(len(starts) - 1)
        distances[alive] = stretches.entries[starts[alive]]
        hits = torch.zeros(len(distances), dtype=torch.bool, device=distances.device)
        return cls(distances, torch.full_like(distances, torch.inf), starts[:-1].clone(), hits), alive


def advance(
    march: March, alive: Tensor, sdf: Tensor, stretches: Intervals, *, scale: float = 0.8, close: float = 3e-4
) -> Tensor:
    """Go on by `scale` times the distance to the surface; returns the numbers of the rays that are still under way.

    A ray has arrived where that step, or five times less than the mean of the last two, is shorter than `close`. Where
    it leaves its stretch it jumps to the next one, without any it is lost; backwards it goes no farther than where it
    came in.

    Args:
        march: where the rays are; changed in place.
        alive: (a,) int64: the numbers of those under way, rising.
        sdf: (a,) the signed distance where each is.
        stretches: in occupied cells, adjoining ones merged (`marching.raytrace(..., merged=True)`).
        scale, close: see above.
    """
    sdf = sdf.detach().to(march.distances.dtype)
    if march.distances.device.type != "cpu":
        return advance_reference(*march, alive, sdf, stretches.starts, stretches.entries, stretches.exits, scale, close)
    under_way = torch.empty(len(alive), dtype=torch.bool)
    inputs = [tensor.contiguous().numpy() for tensor in (alive, sdf, *stretches[:1], *stretches[3:])]
    threads.spread(_loop(), threads.parts_for(-(-len(alive) // 4096)), *(tensor.numpy() for tensor in march), *inputs,
                   float(scale), float(close), under_way.numpy())  # fmt: skip
    return alive[under_way]


@lru_cache
def _loop() -> Any:
    """Compiled at the first call, and kept on disk: importing this module costs nothing."""
    from treadle.kernels.spheretracing_loops import advance as compiled

    return compiled
