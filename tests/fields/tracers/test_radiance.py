"""Densities that are known in closed form, seen along rays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.fields.field import Field
from treadle.fields.rays import Rays
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.fields.structures.octree import Octree
from treadle.fields.tracers.radiance import RadianceTracer


class Ball(Field):
    """A ball of one density and colour; "place" is where a sample lies, "view" along which direction it is seen."""

    channels = {"density": 1, "color": 3, "place": 3, "view": 3, "level": 1}

    def __init__(self, sigma: float = 3.0, radius: float = 0.6) -> None:
        super().__init__()
        self.sigma, self.radius = torch.nn.Parameter(torch.tensor(sigma)), radius
        self.color = torch.nn.Parameter(torch.tensor([0.2, 0.5, 0.9]))
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    def forward(
        self, points: Tensor, directions: Tensor | None = None, channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        assert channels is not None and directions is not None
        self.asked.append((len(points), tuple(channels)))
        inside = (points.norm(dim=1, keepdim=True) < self.radius).to(points)
        made = {"density": self.sigma * inside, "color": self.color.expand(len(points), 3), "place": points,
                "view": directions, "level": torch.full_like(inside, -1.0 if lod is None else lod)}  # fmt: skip
        return {name: made[name] for name in channels}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def looking(count: int = 200) -> tuple[Rays, Tensor, Tensor]:
    """Rays from around, the lengths that they have within the ball, and the distances at which they come in."""
    origins = 3 * torch.nn.functional.normalize(torch.randn(count, 3, generator=rng()), dim=1)
    aims = torch.nn.functional.normalize(0.5 * torch.randn(count, 3, generator=rng(1)) - origins, dim=1)
    along = (origins * aims).sum(1)
    chord = (along**2 - 9 + 0.36).clamp(min=0).sqrt()
    return Rays(origins, aims), 2 * chord, -along - chord


def test_opacity_colour_and_distance_have_closed_forms() -> None:
    rays, length, entry = looking()
    tracer, field = RadianceTracer(OccupancyGrid(16), step=0.002, stop=0), Ball()
    background = torch.tensor([1.0, 0.5, 0.0])
    found = tracer(field, rays, ("color", "place"), background=background)
    opacity = 1 - torch.exp(-3 * length)
    torch.testing.assert_close(found.opacity, opacity, atol=0.004, rtol=0)
    color = opacity[:, None] * field.color + (1 - opacity)[:, None] * background
    torch.testing.assert_close(found.channels["color"], color, atol=0.004, rtol=0)
    inside = length > 0.1
    mean = entry + 1 / 3 - length / (torch.exp(3 * length) - 1)
    torch.testing.assert_close(found.distance[inside], mean[inside], atol=0.003, rtol=0)
    there = (rays.origins + mean[:, None] * rays.directions) * opacity[:, None]
    torch.testing.assert_close(found.channels["place"][inside], there[inside], atol=0.006, rtol=0)
    missed = length == 0
    assert missed.any() and not found.opacity[missed].any() and not found.distance[missed].any()
    assert (found.channels["color"][missed] == background).all()
    assert found.samples == field.asked[0][0] and found.extra["distortion"].shape == (200,)


def test_a_ray_each_has_its_background() -> None:
    rays, _, _ = looking(50)
    each = torch.rand(50, 3, generator=rng())
    tracer, field = RadianceTracer(OccupancyGrid(8), step=0.05), Ball()
    found, black = tracer(field, rays, background=each), tracer(field, rays)
    torch.testing.assert_close(found.channels["color"] - black.channels["color"], (1 - black.opacity)[:, None] * each)


def test_the_gradient_to_the_density_has_a_closed_form() -> None:
    rays, length, _ = looking()
    field = Ball()
    RadianceTracer(OccupancyGrid(8), step=0.001, stop=0)(field, rays).opacity.mean().backward()
    wanted = (length * torch.exp(-3 * length)).mean()
    assert field.sigma.grad is not None and float(field.sigma.grad) == pytest.approx(float(wanted), rel=2e-3)


@pytest.mark.parametrize("density_first", [False, True])
def test_rounds_and_asking_for_the_density_first_change_nothing(density_first: bool) -> None:
    rays, _, _ = looking()
    whole, tracer = (
        RadianceTracer(OccupancyGrid(16), step=0.005),
        RadianceTracer(OccupancyGrid(16), step=0.005, density_first=density_first),
    )
    names = ("color", "place", "view")
    field = Ball(40.0)
    wanted = whole(field, rays, names)
    slopes = torch.autograd.grad(sum(x.square().sum() for x in wanted.channels.values()), list(field.parameters()))
    found = tracer(field, rays, names)
    again = torch.autograd.grad(sum(x.square().sum() for x in found.channels.values()), list(field.parameters()))
    with torch.no_grad():
        quick = tracer(field, rays, names)
    for name in names:
        assert torch.equal(found.channels[name], wanted.channels[name])
        torch.testing.assert_close(quick.channels[name], wanted.channels[name], atol=1e-6, rtol=0)
    for a, b in zip(slopes, again, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(quick.opacity, wanted.opacity, atol=1e-6, rtol=0)
    assert quick.samples < 0.8 * wanted.samples  # the ball is thick: few rays see its other end


def test_the_colour_is_asked_for_where_light_is_left_alone() -> None:
    rays, _, _ = looking()
    field = Ball(400.0)
    grid = OccupancyGrid(16)
    grid.update(lambda points: 400.0 * (points.norm(dim=1) < 0.6), rng(), step=0.005)
    RadianceTracer(grid, step=0.005, density_first=True)(field, rays)
    for_density = sum(n for n, names in field.asked if names == ("density",))
    (for_all,) = [n for n, names in field.asked if "color" in names]
    assert 0 < for_all < 0.7 * for_density


def test_the_generator_shifts_samples_and_none_leaves_them() -> None:
    rays, _, _ = looking()
    tracer, field = RadianceTracer(OccupancyGrid(8), step=0.05), Ball()
    state = torch.get_rng_state()
    same = [tracer(field, rays).distance for _ in range(2)]
    drawn = [tracer(field, rays, generator=rng(seed)).distance for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*same) and torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], same[0])


def test_options_reach_the_march_and_the_field() -> None:
    rays, length, _ = looking()
    field, grid = Ball(), OccupancyGrid(8, 2)
    assert RadianceTracer(grid, step=0.05, most=3)(field, rays).samples == 600
    far = RadianceTracer(grid, step=0.05, near=3.0)(field, rays)
    assert (far.distance[far.opacity > 0] >= 3).all() and (far.opacity > 0).any()
    assert (
        RadianceTracer(grid, step=0.01, cone=0.05)(field, rays).samples
        < RadianceTracer(grid, step=0.01)(field, rays).samples
    )
    per_cell = RadianceTracer(grid, step=9.0, per_cell=2)(field, rays)
    assert (per_cell.opacity[length > 0.4] > 0).all()
    leveled = RadianceTracer(grid, step=0.05)(field, rays, ("level",), lod=4)
    torch.testing.assert_close(leveled.channels["level"][:, 0], 4 * leveled.opacity)


def test_places_follow_the_rays() -> None:
    """What pose refinement needs: a gradient to origins and directions."""
    rays, _, _ = looking(20)
    moved = Rays(rays.origins.clone().requires_grad_(), rays.directions.clone().requires_grad_())
    found = RadianceTracer(OccupancyGrid(8), step=0.01, stop=0)(Ball(), moved, ("place",))
    by_origin, by_direction = torch.autograd.grad(found.channels["place"].sum(), (moved.origins, moved.directions))
    torch.testing.assert_close(by_origin, found.opacity[:, None].expand(20, 3).detach(), atol=1e-5, rtol=0)
    wanted = (found.opacity * found.distance)[:, None].expand(20, 3).detach()
    torch.testing.assert_close(by_direction, wanted, atol=1e-4, rtol=0)


def test_any_structure_will_do() -> None:
    rays, _, _ = looking()
    points = torch.rand(20_000, 3, generator=rng()) * 2 - 1
    tree = Octree.from_points(points[points.norm(dim=1) < 0.6], 4, dilation=1)
    field = Ball()
    sparse = RadianceTracer(tree, step=0.01)(field, rays)
    full = RadianceTracer(OccupancyGrid(16), step=0.01)(field, rays)
    assert sparse.samples < 0.6 * full.samples
    for name in full.channels:
        torch.testing.assert_close(sparse.channels[name], full.channels[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("grad", [False, True])
def test_rays_that_meet_nothing_see_the_background(grad: bool) -> None:
    grid = OccupancyGrid(8)
    rays, field = Rays(torch.full((4, 3), 5.0), torch.eye(3)[[0, 1, 2, 0]]), Ball()
    for some in (rays, rays[:0]):
        with torch.set_grad_enabled(grad):
            found = RadianceTracer(grid, step=0.1)(field, some, background=torch.ones(3))
        assert (found.channels["color"] == 1).all() and not found.opacity.any() and found.samples == 0
        if grad:
            found.channels["color"].sum().backward()  # zero, but there: a step goes on


def test_what_is_not_declared_is_refused() -> None:
    rays, _, _ = looking(4)
    tracer = RadianceTracer(OccupancyGrid(8), step=0.1)
    with pytest.raises(UsageError, match="Ball has no channel 'colour'; did you mean 'color'"):
        tracer(Ball(), rays, ("colour",))
    bare = Ball()
    bare.channels = {"sdf": 1}
    with pytest.raises(UsageError, match="Ball has no channel 'density'; known: sdf"):
        tracer(bare, rays, ("sdf",))
    with pytest.raises(UsageError, match="not finite"):
        tracer(Ball(), Rays(rays.origins * math.nan, rays.directions))
    for options in ({"step": 0.0}, {"step": 1.0, "stop": 1.0}, {"step": 1.0, "most": 0}, {"step": 1.0, "near": -1.0}):
        with pytest.raises(UsageError, match="radiance tracer"):
            RadianceTracer(OccupancyGrid(8), **options)
