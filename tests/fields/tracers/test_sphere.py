"""Surfaces that are known in closed form, hit by rays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.fields.field import Field
from treadle.fields.rays import Rays
from treadle.fields.structures.octree import Octree
from treadle.fields.tracers.sphere import SphereTracer

F64 = torch.float64


class Solid(Field):
    """A signed distance; the colour of a place is the place."""

    channels = {"sdf": 1, "color": 3}

    def __init__(self, distance: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.distance = distance
        self.offset = torch.nn.Parameter(torch.zeros((), dtype=F64))

    def forward(
        self, points: Tensor, directions: Tensor | None = None, channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        return {"sdf": self.distance(points)[:, None] - self.offset, "color": points}


def sphere(points: Tensor) -> Tensor:
    return points.norm(dim=1) - 0.6


def box(points: Tensor) -> Tensor:
    outside = points.abs() - torch.tensor([0.5, 0.3, 0.4], dtype=points.dtype)
    return outside.clamp(min=0).norm(dim=1) + outside.amax(1).clamp(max=0)


def torus(points: Tensor) -> Tensor:
    return torch.stack((points[:, :2].norm(dim=1) - 0.5, points[:, 2]), 1).norm(dim=1) - 0.2


SOLIDS = {"sphere": sphere, "box": box, "torus": torus}


def looking(count: int = 400) -> Rays:
    generator = torch.Generator().manual_seed(0)
    origins = 2.5 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=F64), dim=1)
    aims = 0.4 * torch.randn(count, 3, generator=generator, dtype=F64) - origins
    return Rays(origins, torch.nn.functional.normalize(aims, dim=1))


def first_zero(distance: Callable[[Tensor], Tensor], rays: Rays) -> tuple[Tensor, Tensor]:
    """By brute force: the first change of sign on a fine ladder, then bisection; and the least distance on the way."""
    t = torch.linspace(0, 5, 4001, dtype=F64)
    values = distance((rays.origins[:, None] + t[:, None] * rays.directions[:, None]).reshape(-1, 3)).reshape(-1, 4001)
    below = values < 0
    first = below.double().argmax(1)
    low, high = t[(first - 1).clamp(min=0)], t[first]
    for _ in range(40):
        middle = (low + high) / 2
        inside = distance(rays.origins + middle[:, None] * rays.directions) < 0
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
    return torch.where(below.any(1), high, torch.inf), values.amin(1)


def cells_around(distance: Callable[[Tensor], Tensor], level: int = 4) -> Octree:
    side = 1 << level
    all_ = torch.cartesian_prod(*[torch.arange(side)] * 3)
    centres = (all_ + 0.5) * (2 / side) - 1
    return Octree(all_[distance(centres.double()).abs() < 1.8 / side], level)


@pytest.mark.parametrize("name", SOLIDS)
@pytest.mark.parametrize("sparse", [False, True])
def test_rays_hit_where_the_surface_is(name: str, sparse: bool) -> None:
    rays, distance = looking(), SOLIDS[name]
    wanted, least = first_zero(distance, rays)
    tracer = SphereTracer(cells_around(distance) if sparse else None)
    with torch.no_grad():
        found = tracer(Solid(distance), rays, ("color", "normal"), background=torch.ones(3))
    hit, there = found.opacity > 0, torch.isfinite(wanted)
    # Those that pass within a few thousandths may go either way.
    clear = (least < -5e-3) | (least > 5e-3)
    assert torch.equal(hit[clear], there[clear]) and 0.2 < hit.double().mean() < 0.95
    both = hit & (least < -5e-3)
    close = (found.distance - wanted).abs()[both] < 1e-3
    # A ray that passes a bulge within 2e-3 has arrived there, whatever it would meet behind it.
    assert close.double().mean() > 0.99
    assert not found.distance[~hit].any() and (found.channels["color"][~hit] == 1).all()
    places = rays.origins + found.distance[:, None] * rays.directions
    assert distance(places[hit]).abs().max() < 2e-3 and distance(places[both][close]).abs().max() < 1e-5
    torch.testing.assert_close(found.channels["color"][hit], places[hit])
    exact = places.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(exact).sum(), exact)
    normals = found.channels["normal"]
    torch.testing.assert_close(normals[hit].norm(dim=1), torch.ones(int(hit.sum()), dtype=F64))
    agree = (normals[both] * torch.nn.functional.normalize(slope[both], dim=1)).sum(1)
    assert agree.median() > 0.9999 and (agree > 0.99).double().mean() > 0.9  # a box's edges are rounded off


def test_cells_save_most_of_the_asking() -> None:
    rays, field = looking(), Solid(torus)
    with torch.no_grad():
        plain, sparse = (SphereTracer(cells)(field, rays) for cells in (None, cells_around(torus, 5)))
    assert sparse.samples < 0.75 * plain.samples


def test_a_learnt_distance_that_is_wrong_is_still_found() -> None:
    """Half as large, half as large again, and with noise: what networks give."""
    rays = looking()
    wanted, least = first_zero(sphere, rays)
    both = least < -2e-2
    for wrong in (
        lambda p: 0.5 * sphere(p), lambda p: 1.5 * sphere(p), lambda p: sphere(p) + 1e-3 * torch.sin(200 * p).sum(1)
    ):  # fmt: skip
        with torch.no_grad():
            found = SphereTracer()(Solid(wrong), rays)
        assert (found.opacity[both] == 1).all()
        torch.testing.assert_close(found.distance[both], wanted[both], atol=0.02, rtol=0)


def test_the_distance_moves_with_the_surface() -> None:
    """dt / d radius = -radius / (half the chord): the implicit function's derivative."""
    rays, field = looking(), Solid(sphere)
    found = SphereTracer()(field, rays, ("color",))
    deep = (found.opacity > 0) & (first_zero(sphere, rays)[1] < -0.05)
    (slope,) = torch.autograd.grad(found.distance[deep].sum(), field.offset, retain_graph=True)
    along = (rays.origins * rays.directions).sum(1)
    half_chord = (along**2 - 2.5**2 + 0.36)[deep].sqrt()
    assert float(slope) == pytest.approx(float(-(0.6 / half_chord).sum()), rel=1e-3)
    (by_color,) = torch.autograd.grad(found.channels["color"][deep].sum(), field.offset)
    wanted = -(0.6 / half_chord * rays.directions[deep].sum(1)).sum()
    assert float(by_color) == pytest.approx(float(wanted), rel=1e-3)


def test_the_normal_may_be_the_fields_own() -> None:
    field = Solid(sphere)
    field.channels = {**field.channels, "normal": 3}
    plain = field.forward
    field.forward = lambda points, *rest: {**plain(points), "normal": torch.full_like(points, 7.0)}  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        found = SphereTracer()(field, looking(), ("normal",))
    assert (found.channels["normal"][found.opacity > 0] == 7).all()


def test_rays_from_within_see_the_surface_at_once_and_from_beyond_nothing() -> None:
    field = Solid(sphere)
    rays = Rays(torch.tensor([[0.0, 0, 0], [0, 0, 3], [0, 0, 3]], dtype=F64), torch.eye(3, dtype=F64)[[0, 2, 0]])
    with torch.no_grad():
        found = SphereTracer()(field, rays)
        empty = SphereTracer()(field, rays[:0], ("color", "normal"))
    assert found.opacity.tolist() == [1, 0, 0] and found.distance[0] == 0
    assert empty.channels["color"].shape == empty.channels["normal"].shape == (0, 3) and empty.samples == 0


def test_near_hides_what_is_before_it() -> None:
    rays = looking()
    with torch.no_grad():
        found = SphereTracer(near=4.0)(Solid(sphere), rays)
    assert not found.opacity.any()


def test_what_makes_no_sense_is_refused() -> None:
    rays = looking(4)
    with pytest.raises(UsageError, match="Solid gave 4 distances that are not finite"):
        SphereTracer()(Solid(lambda p: p[:, 0] * np.nan), rays)
    field = Solid(sphere)
    with pytest.raises(UsageError, match="no channel 'density'"):
        SphereTracer()(field, rays, ("density",))
    field.channels = {"density": 1}
    with pytest.raises(UsageError, match="no channel 'sdf'"):
        SphereTracer()(field, rays, ("normal",))
    for options in ({"scale": 0.0}, {"scale": 1.5}, {"close": 0.0}, {"most": 0}, {"refine": -1}, {"spread": 0.0}):
        with pytest.raises(UsageError, match="sphere tracer"):
            SphereTracer(**options)  # type: ignore[arg-type]
