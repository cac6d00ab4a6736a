"""Seeing the surface of a signed distance: steps as long as it allows, until it is reached."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.fields.field import Field
from treadle.fields.rays import Rays
from treadle.fields.structures.structure import Structure
from treadle.fields.tracer import Traced, Tracer, declared, over
from treadle.kernels.marching import Intervals, raytrace
from treadle.kernels.spheretracing import March, advance


class SphereTracer(Tracer):
    """Sphere tracing (Hart 1996) of fields with an "sdf", within the box or the occupied cells of a structure.

    Channels are those of the field where the surface is, 0 where a ray meets none; "normal" (3 values: the unit vector
    out of the surface) is there for every field. Their gradients, and that of the distance, are those of the field at
    these places; places move with it as the surface does (Niemeyer et al. 2020, https://arxiv.org/abs/1912.07372).

    Args:
        structure: cells that hold all of the surface; [-1, 1]^3 where None.
        scale: the share of the distance that is gone in a step: learnt ones are not to be trusted wholly.
        close: a step so short has arrived; and so has the second of two that make five times that in the mean.
        most: steps after which a ray counts as lost.
        refine: how often places are improved after that, by secants along the ray.
        spread: half the distance between the two places whose difference is a component of a normal.
        near: nothing is seen nearer than this.

    Raises:
        UsageError: numbers out of range.
    """

    def __init__(
        self,
        structure: Structure | None = None,
        *,
        scale: float = 0.8,
        close: float = 3e-4,
        most: int = 256,
        refine: int = 3,
        spread: float = 0.005,
        near: float = 0.0,
    ) -> None:
        super().__init__()
        if not (0 < scale <= 1 and close > 0 and most >= 1 and refine >= 0 and spread > 0 and near >= 0):
            raise UsageError(f"sphere tracer: scale is {scale:g}, close {close:g}, most {most}, refine {refine}, "
                             f"spread {spread:g}, near {near:g}: expected positive ones, scale up to 1")  # fmt: skip
        self.structure = structure
        self.scale, self.close, self.most = scale, close, most
        self.refine, self.spread, self.near = refine, spread, near

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
        """See `Tracer.forward`; nothing is drawn by chance here."""
        own = [name for name in channels if name != "normal" or "normal" in field.channels]
        names = declared(field, "sdf", own)
        with torch.no_grad():
            distances, hits, asked = self._follow(field, rays, lod)
        chosen = torch.nonzero(hits)[:, 0]
        there = rays[chosen]
        along = distances[chosen]
        points = there.origins + along[:, None] * there.directions
        slopes = None
        if torch.is_grad_enabled() or ("normal" in channels and "normal" not in names):
            slopes = self.slopes(field, points, lod)
            asked += 6 * len(points)
        if torch.is_grad_enabled() and slopes is not None:
            # To first order the surface moves along the ray by its change of distance over its slope there.
            slope = (slopes.detach() * there.directions).sum(1).clamp(max=-0.01)
            sdf = field(points, there.directions, ["sdf"], lod)["sdf"].reshape(-1)
            along = along - (sdf - sdf.detach()) / slope
            points = there.origins + along[:, None] * there.directions
            asked += len(points)
        found: dict[str, Tensor] = {}
        if names:
            values = field(points, there.directions, names, lod)
            asked += len(points)
            found = {name: spread_out(values[name], chosen, len(rays)) for name in names}
        if "normal" in channels and slopes is not None and "normal" not in found:
            found["normal"] = spread_out(torch.nn.functional.normalize(slopes, dim=1), chosen, len(rays))
        opacity = hits.to(rays.origins.dtype)
        if "color" in found:
            found["color"] = over(found["color"], opacity, background)
        return Traced(found, spread_out(along, chosen, len(rays)), opacity, asked)

    def slopes(self, field: Field, points: Tensor, lod: int | None = None) -> Tensor:
        """The gradient (n, 3) of the distance at `points` (n, 3), by central differences; along it is the normal."""
        shifts = self.spread * torch.eye(3, dtype=points.dtype, device=points.device)
        around = (points[:, None, None] + torch.stack((shifts, -shifts), 1)).reshape(-1, 3)
        sdf = field(around, None, ["sdf"], lod)["sdf"].reshape(-1, 3, 2)
        return (sdf[..., 0] - sdf[..., 1]) / (2 * self.spread)

    def _stretches(self, rays: Rays) -> Intervals:
        if self.structure is not None:
            return self.structure.raytrace(rays, self.near, merged=True)
        box = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=rays.origins.device)
        return raytrace(rays.origins.detach(), rays.directions.detach(), box, near=self.near)

    def _follow(self, field: Field, rays: Rays, lod: int | None) -> tuple[Tensor, Tensor, int]:
        """How far each ray goes (r,), whether it hits (r,), and how often the field was asked."""
        stretches = self._stretches(rays)
        march, alive = March.begin(stretches)
        asked = 0
        for _ in range(self.most):
            if len(alive) == 0:
                break
            sdf = self._sdf(field, rays[alive], march.distances[alive], lod)
            asked += len(alive)
            alive = advance(march, alive, sdf, stretches, scale=self.scale, close=self.close)
        hit = torch.nonzero(march.hits)[:, 0]
        if self.refine and len(hit):
            entries = stretches.entries[stretches.starts[hit]]
            march.distances[hit], more = self._refined(field, rays[hit], march.distances[hit], entries, lod)
            asked += more
        return march.distances, march.hits, asked

    def _refined(self, field: Field, rays: Rays, t: Tensor, first: Tensor, lod: int | None) -> tuple[Tensor, int]:
        """Closer to the zero near `t`, from `first` on, by secants; where a ray but grazes, the least found."""
        before, there = t, self._sdf(field, rays, t, lod)
        best, least = before, there.abs()
        value, longest = there, 100 * self.close
        step = (self.scale * value).clamp(-longest, longest)
        for _ in range(self.refine):
            t = torch.maximum(before + step, first)
            step = t - before
            new = self._sdf(field, rays, t, lod)
            best, least = torch.where(new.abs() < least, t, best), torch.minimum(least, new.abs())
            slope = (new - value) / step
            secant = -new / torch.where(slope.abs() > 1e-3, slope, -1.0)
            step = torch.where(step == 0, 0, secant).clamp(-longest, longest).nan_to_num(0.0)
            before, value = t, new
        return best, len(t) * (self.refine + 1)

    def _sdf(self, field: Field, rays: Rays, t: Tensor, lod: int | None) -> Tensor:
        points = rays.origins + t[:, None] * rays.directions
        sdf: Tensor = field(points, rays.directions, ["sdf"], lod)["sdf"].reshape(-1).to(t.dtype)
        if not bool(torch.isfinite(sdf).all()):
            raise UsageError(f"sphere tracer: {type(field).__name__} gave {int((~sdf.isfinite()).sum())} distances "
                             "that are not finite")  # fmt: skip
        return sdf


def spread_out(values: Tensor, chosen: Tensor, count: int) -> Tensor:
    """(count, ...) with `values` at `chosen`, 0 elsewhere."""
    return values.new_zeros(count, *values.shape[1:]).index_put((chosen,), values)
