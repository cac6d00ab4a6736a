"""What a camera sees of a pipeline: any field under any tracer, also one's own; and how many rays a step takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.fields.field import Field
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays
from treadle.fields.rendering import next_rays, render
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.fields.tracer import Traced, Tracer
from treadle.fields.tracers.radiance import RadianceTracer
from treadle.fields.tracers.sphere import SphereTracer


class Wall(Field):
    """A solid slab, -.25 <= z <= .25, seen as a distance and as a dense fog."""

    channels = {"sdf": 1, "density": 1, "color": 3}

    def forward(
        self, points: Tensor, directions: Tensor | None = None, channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        sdf = points[:, 2:].abs() - 0.25
        shade = torch.full_like(points, 0.5 if lod is None else lod / 10)
        return {"sdf": sdf, "density": 1000.0 * (sdf < 0), "color": shade}


class Slices(Tracer):
    """A tracer of one's own: what a field has in the plane z = 0, wherever a ray meets it."""

    def forward(self, field: Field, rays: Rays, channels: Sequence[str] = ("color",), *,
                background: Tensor | None = None, generator: torch.Generator | None = None,
                lod: int | None = None) -> Traced:  # fmt: skip
        along = -rays.origins[:, 2] / rays.directions[:, 2]
        points = rays.origins + along[:, None] * rays.directions
        seen = (along > 0) & (points.abs() <= 1).all(1)
        values = field(points, rays.directions, channels, lod)
        return Traced({name: values[name] * seen[:, None] for name in channels}, along * seen, seen.float(), len(rays))


def camera(width: int = 12, height: int = 8) -> Camera:
    """Two before the wall, looking along z."""
    pose = np.eye(4)
    pose[2, 3] = 2
    return Camera(width, height, 40.0, 40.0, width / 2, height / 2, pose)


TRACERS = {
    "radiance": (RadianceTracer(OccupancyGrid(16), step=0.002), 1.75),
    "sphere": (SphereTracer(), 1.75),
    "own": (Slices(), 2.0),
}


@pytest.mark.parametrize("name", TRACERS)
def test_any_tracer_gives_pictures_of_all_channels(name: str) -> None:
    tracer, depth = TRACERS[name]
    pictures = render(Pipeline(Wall(), tracer), camera())
    assert list(pictures) == ["sdf", "density", "color", "distance", "depth", "opacity"]
    assert {name: tuple(x.shape) for name, x in pictures.items()} == {
        **dict.fromkeys(["sdf", "density", "distance", "depth", "opacity"], (8, 12, 1)), "color": (8, 12, 3)
    }  # fmt: skip
    torch.testing.assert_close(pictures["color"], torch.full((8, 12, 3), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(pictures["depth"], torch.full((8, 12, 1), depth), atol=3e-3, rtol=0)
    rays = Rays.of(camera())
    cosine = rays.directions[:, 2].reshape(8, 12, 1)
    torch.testing.assert_close(pictures["distance"] * cosine, pictures["depth"])
    assert pictures["distance"][0, 0] > 1.005 * pictures["depth"][0, 0] and not pictures["color"].requires_grad


def test_pieces_change_nothing() -> None:
    pipeline = Pipeline(Wall(), TRACERS["radiance"][0])
    whole = render(pipeline, camera(), ["color"])
    for chunk in (1, 7, 96, 97):
        pieces = render(pipeline, camera(), ["color"], chunk=chunk)
        assert pieces.keys() == whole.keys() and all(torch.equal(pieces[name], whole[name]) for name in whole)


def test_background_and_level_of_detail_are_passed_on() -> None:
    aside = camera()
    aside.world_to_camera[0, 3] = 9
    found = render(Pipeline(Wall(), SphereTracer()), aside, ["color"], background=torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(found["color"][0, 0], torch.tensor([0.1, 0.2, 0.3]))
    assert not found["opacity"].any() and not found["depth"].any()
    levelled = render(Pipeline(Wall(), SphereTracer()), camera(), ["color"], lod=3)
    torch.testing.assert_close(levelled["color"], torch.full((8, 12, 3), 0.3))


def test_what_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(UsageError, match="chunk is 0"):
        render(Pipeline(Wall(), SphereTracer()), camera(), chunk=0)
    with pytest.raises(UsageError, match="Wall has no channel 'colour'"):
        render(Pipeline(Wall(), SphereTracer()), camera(), ["colour"])


def test_rays_follow_the_samples() -> None:
    assert next_rays(1000, 20_000, 65_536, 64, 10_000) == 3264  # 3276, down to a multiple of 64
    assert next_rays(1000, 20_000, 65_536, 64, 10_000, multiple=1) == 3276
    assert next_rays(1000, 10**9, 65_536, 500, 10_000) == 500
    assert next_rays(1000, 1, 65_536, 64, 10_000) == next_rays(1000, 0, 65_536, 64, 10_000) == 10_000
    rays = 64
    for _ in range(3):
        rays = next_rays(rays, 17 * rays, 65_536, 64, 100_000)
    assert rays == 65_536 // 17 // 64 * 64
    for bad in ((0, 5, 5, 1, 5), (5, -1, 5, 1, 5), (5, 5, 0, 1, 5), (5, 5, 5, 6, 5)):
        with pytest.raises(UsageError, match="next_rays"):
            next_rays(*bad)
