"""Seeing a density: samples along each ray where there may be something, blended front to back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.fields.field import Field
from treadle.fields.rays import Rays
from treadle.fields.structures.structure import Structure
from treadle.fields.tracer import Traced, Tracer, declared, over
from treadle.kernels.marching import Samples
from treadle.kernels.volume import composite, reached

FIRST_ROUND = 16
"""Samples of each ray that are asked for at once before it is seen whether light is left; twice as many in each round
after that."""


class RadianceTracer(Tracer):
    """Volume rendering (Mildenhall et al. 2020) of fields with a "density", by packed samples in occupied cells.

    Any channel is integrated alike: the sum over a ray's samples of weight times value. Without gradients a ray is
    followed only as far as light is left. `extra` holds "distortion", see `treadle.kernels.volume.Composite`.

    Args:
        structure: which cells are occupied; part of the tracer, and saved with it.
        step: how far apart samples are.
        cone: how that grows with the distance, for scenes larger than the box; instant-ngp takes 1/256.
        stop: samples before which less light than this is left count nothing.
        near: nothing is seen nearer than this.
        most: samples of a ray, at most.
        per_cell: if not 0, so many samples in each cell that a ray crosses, instead of one every `step`.
        density_first: whether, with gradients, the density alone is asked for first, without them, so that samples
            that no light reaches are not asked for more. Worth its cost only where that is most of them.

    Raises:
        UsageError: numbers out of range.
    """

    def __init__(
        self,
        structure: Structure,
        *,
        step: float,
        cone: float = 0.0,
        stop: float = 1e-4,
        near: float = 0.0,
        most: int = 1 << 20,
        per_cell: int = 0,
        density_first: bool = False,
    ) -> None:
        super().__init__()
        if not (step > 0 and cone >= 0 and 0 <= stop < 1 and near >= 0 and most >= 1 and per_cell >= 0):
            raise UsageError(f"radiance tracer: step is {step:g}, cone {cone:g}, stop {stop:g}, near {near:g}, "
                             f"most {most}, per_cell {per_cell}: expected a positive step, at least one sample, stop "
                             "below 1, and nothing below 0")  # fmt: skip
        self.structure = structure
        self.step, self.cone, self.stop, self.near = step, cone, stop, near
        self.most, self.per_cell, self.density_first = most, per_cell, density_first

    def forward(
        self,
        field: Field,
        rays: Rays,
        channels: Sequence[str] = ("color",),
        *,
        background: Tensor | None = None,
        generator: torch.Generator | None = None,
        lod: int | None = None,
    ) -> Traced:
        """See `Tracer.forward`; `generator` shifts each ray's samples within their steps."""
        names = declared(field, "density", channels)
        jitter = None
        if generator is not None:
            jitter = torch.rand(len(rays), generator=generator).to(rays.origins)
        samples = self.structure.march(
            rays, step=self.step, cone=self.cone, jitter=jitter, near=self.near, most=self.most, per_cell=self.per_cell
        )
        asked = 0
        if not torch.is_grad_enabled():
            density, values, asked = self._in_rounds(field, rays, samples, names, lod)
        else:
            if self.density_first:
                with torch.no_grad():
                    density, _, asked = self._in_rounds(field, rays, samples, [], lod)
                samples = thinned(samples, reached(density, samples.deltas, samples.starts, stop=self.stop))
            density, values = ask(field, rays, samples.rays, samples.distances, names, lod)
            asked += len(density)
        kind = density.dtype
        seen = composite(
            density, values, samples.distances.to(kind), samples.deltas.to(kind), samples.starts, stop=self.stop
        )
        found = dict(zip(names, seen.values.split([field.channels[name] for name in names], 1), strict=True))
        if "color" in found:
            found["color"] = over(found["color"], seen.opacity, background)
        return Traced(found, seen.distance, seen.opacity, asked, {"distortion": seen.distortion})

    def _in_rounds(
        self, field: Field, rays: Rays, samples: Samples, names: list[str], lod: int | None
    ) -> tuple[Tensor, Tensor, int]:
        """Density and values of all samples that light reaches, 0 of the others, and how many were asked for.

        Rays are followed some samples at a time, those alone in which light is left.
        """
        starts = samples.starts
        density = samples.distances.new_zeros(len(samples.distances))
        values = density.new_zeros(len(density), sum(field.channels[name] for name in names))
        light = density.new_ones(len(rays))
        alive, done, size, asked = torch.nonzero(starts.diff())[:, 0], 0, FIRST_ROUND, 0
        while len(alive):
            begin = starts[alive] + done
            counts = (starts[alive + 1] - begin).clamp(max=size)
            local = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
            chosen = torch.arange(int(local[-1]), device=begin.device) + (begin - local[:-1]).repeat_interleave(counts)
            some, their_values = ask(field, rays, samples.rays[chosen], samples.distances[chosen], names, lod)
            density[chosen], values[chosen] = some.to(density), their_values.to(values)
            asked += len(chosen)
            parts = (
                density[chosen],
                density.new_zeros(len(chosen), 0),
                samples.distances[chosen],
                samples.deltas[chosen],
            )
            light[alive] *= 1 - composite(*parts, local, stop=0.0).opacity
            done, size = done + size, 2 * size
            # A little longer than necessary: where exactly a ray ends is decided when all is blended.
            alive = alive[(light[alive] > self.stop * 0.9) & (starts[alive] + done < starts[alive + 1])]
        return density, values, asked


def ask(
    field: Field, rays: Rays, which: Tensor, distances: Tensor, names: list[str], lod: int | None
) -> tuple[Tensor, Tensor]:
    """The density (m,) and the values (m, C) of channels at distances (m,) along the rays `which` (m,)."""
    directions = rays.directions[which]
    points = rays.origins[which] + distances[:, None] * directions
    found = field(points, directions, list(dict.fromkeys(["density", *names])), lod)
    density = found["density"].reshape(-1)
    parts = [found[name].to(density.dtype) for name in names]
    return density, torch.cat(parts, 1) if parts else density.new_zeros(len(density), 0)


def thinned(samples: Samples, kept: Tensor) -> Samples:
    """Those that `kept` (m,) says."""
    before = torch.cat((samples.starts.new_zeros(1), kept.long().cumsum(0)))
    return Samples(before[samples.starts], samples.rays[kept], samples.distances[kept], samples.deltas[kept])
