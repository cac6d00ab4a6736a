"""What every acceleration structure is: cells of space, of which those that hold nothing cost next to nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.rays import Rays
from treadle.kernels.marching import Intervals, Samples, Tree, march, raytrace


class Structure(nn.Module):
    """Cells of space that are occupied or empty; a subclass says which by `query` and `space`.

    Attributes:
        extent: the structure covers [-extent, extent]^3.
    """

    extent: float

    def query(self, points: Tensor) -> Tensor:
        """The number of the occupied cell that holds each of `points` (n, 3): (n,) int64, -1 where there is none."""
        raise NotImplementedError(f"{type(self).__name__} is a Structure without query(points)")

    def space(self) -> Tensor | Tree:
        """The cells, as `treadle.kernels.marching` takes them."""
        raise NotImplementedError(f"{type(self).__name__} is a Structure without space()")

    def occupied(self, points: Tensor) -> Tensor:
        """Whether each of `points` (n, 3) lies in an occupied cell: (n,) bool."""
        return self.query(points) >= 0

    @torch.no_grad()
    def raytrace(
        self, rays: Rays, near: float | Tensor = 0.0, far: float | Tensor = math.inf, *, merged: bool = False
    ) -> Intervals:
        """The stretches of `rays` in occupied cells, front to back, by the numbers that `query` gives.

        Args:
            rays: n of them.
            near, far: between which distances: numbers, or (n,).
            merged: whether stretches that adjoin are to be one.
        """
        return raytrace(rays.origins, rays.directions, self.space(), near=near, far=far, merged=merged)

    @torch.no_grad()
    def march(
        self,
        rays: Rays,
        *,
        step: float,
        cone: float = 0.0,
        jitter: Tensor | None = None,
        near: float | Tensor = 0.0,
        far: float | Tensor = math.inf,
        most: int = 1 << 20,
        per_cell: int = 0,
    ) -> Samples:
        """Samples along `rays` in occupied cells: `step` apart (`treadle.kernels.marching.march`), or some per cell.

        Args:
            rays: n of them.
            step, cone: how far apart, and how that grows with the distance.
            jitter: (n,) in [0, 1), where in their steps the samples of a ray lie; the middle where None.
            near, far: between which distances: numbers, or (n,).
            most: samples of a ray; it ends after them.
            per_cell: where it is not 0, each stretch of a ray in a cell is cut into so many equal steps instead, which
                finds thin cells however long `step` is.
        """
        if per_cell == 0:
            return march(rays.origins, rays.directions, self.space(), step=step, cone=cone, jitter=jitter, near=near,
                         far=far, most=most)  # fmt: skip
        if per_cell < 0:
            raise UsageError(f"march: per_cell is {per_cell}: expected 0 or more")
        return per_stretch(self.raytrace(rays, near, far), per_cell, jitter, most)


def per_stretch(found: Intervals, count: int, jitter: Tensor | None, most: int) -> Samples:
    """`count` samples in each stretch, each in the middle of its part or, with `jitter` (n,), somewhere in it."""
    deltas = (found.exits - found.entries) / count
    shift = 0.5 if jitter is None else jitter.to(deltas)[found.rays][:, None]
    place = torch.arange(count, dtype=deltas.dtype, device=deltas.device)
    distances = (found.entries[:, None] + (place + shift) * deltas[:, None]).flatten()
    rays, deltas, starts = found.rays.repeat_interleave(count), deltas.repeat_interleave(count), found.starts * count
    if bool((starts.diff() > most).any()):
        kept = torch.arange(len(rays), device=rays.device) - starts[:-1][rays] < most
        distances, deltas, rays = distances[kept], deltas[kept], rays[kept]
        starts = torch.cat((starts[:1], starts.diff().clamp(max=most).cumsum(0)))
    return Samples(starts, rays, distances, deltas)
