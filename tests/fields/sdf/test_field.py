from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.decoder import Decoder
from treadle.fields.grids.hash import HashEncoding
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays
from treadle.fields.sdf.field import SDFField
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.fields.tracers.radiance import RadianceTracer
from treadle.fields.tracers.sphere import SphereTracer


def make(outputs: int = 4, **settings) -> SDFField:
    torch.manual_seed(0)
    grid = HashEncoding(3, 3, 2, 8, 4, 16)
    return SDFField(grid, Decoder(grid.width, outputs, 8, 1, "none"), **settings)


def test_its_channels_are_distance_density_and_where_it_is_learnt_colour():
    points = torch.rand(5, 3) * 2 - 1
    field = make()
    found = field(points)
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "sdf": (5, 1), "density": (5, 1), "color": (5, 3)}  # fmt: skip
    assert found.keys() == field.channels.keys() == make().channels.keys()
    assert set(field(points, None, ["sdf"])) == {"sdf"} and set(make(1).channels) == {"sdf", "density"}
    assert bool(((found["color"] > 0) & (found["color"] < 1)).all())
    torch.testing.assert_close(field.evaluate(points), found["sdf"].detach())
    torch.testing.assert_close(field.density(points), found["density"][:, 0])
    with pytest.raises(UsageError, match="1 output, or 4 with colours, not 3"):
        make(3)


def test_density_is_that_of_neus_seen_head_on():
    field = make(sharpness=40.0)
    distance = torch.linspace(-0.3, 0.3, 6001, dtype=torch.float64, requires_grad=True)
    # Going inwards along the normal, its equation 10 is the slope of the logistic function over the function itself.
    phi = (40 * distance).sigmoid()
    (slope,) = torch.autograd.grad(phi.sum(), distance)
    torch.testing.assert_close(field.density_of(distance), (slope / phi).detach(), atol=1e-4, rtol=1e-4)


def test_a_ball_is_seen_alike_by_both_tracers():
    field = make(ball=0.5, sharpness=400.0)
    with torch.no_grad():
        for layer in field.decoder.layers:
            layer.weight.zero_()
            layer.bias.zero_()
    assert field.evaluate(torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0, 1]])).flatten().tolist() == [-0.5, 0.0, 0.5]
    rays = Rays(torch.tensor([[0.1, 0.2, 3.0], [0.9, 0.0, 3.0]]), torch.tensor([[0.0, 0, -1], [0, 0, -1]]))
    expected = 3 - (0.25 - 0.05) ** 0.5
    with torch.no_grad():
        surface = Pipeline(field, SphereTracer())(rays, ["normal", "color"])
        volume = Pipeline(field, RadianceTracer(OccupancyGrid(8), step=0.002))(rays, ["color"])
    assert float(surface.distance[0]) == pytest.approx(expected, abs=1e-3)
    assert float(volume.distance[0]) == pytest.approx(expected, abs=5e-3)
    assert surface.opacity.tolist() == [1.0, 0.0]
    assert float(volume.opacity[0]) > 0.99 and float(volume.opacity[1]) < 0.01
    torch.testing.assert_close(
        surface.channels["normal"][0], torch.tensor([0.1, 0.2, 0.2**0.5]) / 0.5, atol=1e-2, rtol=0
    )


def test_gradients_of_the_distance_have_gradients_to_the_parameters():
    field = make(ball=0.5)
    points = torch.rand(50, 3) - 0.5
    (field.gradients(points, 0.01).norm(dim=1) - 1).square().sum().backward()
    assert field.grid.table.grad is not None and float(field.grid.table.grad.abs().sum()) > 0
    normals = field.normals(points)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(50))
    outwards = torch.nn.functional.normalize(points, dim=1)
    assert float((normals * outwards).detach().sum(1).mean()) > 0.99
