from __future__ import annotations

import numpy as np
import torch

from treadle.cameras.rays import project
from treadle.fields.decoder import Decoder
from treadle.fields.grids.hash import HashEncoding
from treadle.fields.sdf import panels
from treadle.fields.sdf.field import SDFField


def make(colored: bool = False) -> SDFField:
    """An exact ball of radius .5."""
    grid = HashEncoding(3, 2, 2, 6, 4, 8)
    field = SDFField(grid, Decoder(grid.width, 4 if colored else 1, 4, 1, "none"), ball=0.5)
    with torch.no_grad():
        for layer in field.decoder.layers:
            layer.weight.zero_()
            layer.bias.zero_()
    return field


def test_cameras_are_upright_and_see_all_of_the_solid():
    for direction in panels.VIEWS.values():
        camera = panels.camera_at(direction, 100)
        np.testing.assert_allclose(np.linalg.det(camera.world_to_camera[:3, :3]), 1)
        pixels, depths = project(camera, np.array([[0, 0, 0], [0, 0.1, 0]]))
        np.testing.assert_allclose(pixels[0], [50, 50])
        assert pixels[1][1] < pixels[0][1] and depths[0] == panels.DISTANCE  # y points up
        ball = np.random.default_rng(0).normal(size=(500, 3))
        edges, _ = project(camera, 0.9 * ball / np.linalg.norm(ball, axis=1, keepdims=True))
        assert edges.min() > 0 and edges.max() < 100


def test_a_ball_is_seen_as_one_lit_from_the_upper_left_and_open_everywhere():
    seen = panels.see(make(), panels.camera_at((0, 0, 1), 64))
    solid = seen.opacity[..., 0] > 0.5
    middle = seen.depth[32, 32, 0]
    np.testing.assert_allclose(middle, panels.DISTANCE - 0.5, atol=2e-3)
    assert solid[32, 32] and not solid[2, 2]
    np.testing.assert_allclose(np.linalg.norm(seen.normals[solid], axis=1), 1, atol=1e-4)
    assert seen.normals[20, 32, 1] > 0.3 and seen.normals[32, 44, 0] > 0.3
    assert seen.occlusion[solid].min() > 0.99
    picture = panels.shaded(seen)
    assert picture[24, 24].mean() > picture[40, 40].mean() + 0.2 and (picture[2, 2] == 1).all()


def test_a_corner_is_darker_than_the_open():
    class Corner(SDFField):
        def forward(self, points, directions=None, channels=None, lod=None):
            return {"sdf": points[:, :2].amin(1, keepdim=True)}  # walls at x = 0 and y = 0, open where both are above

    points = torch.tensor([[0.0, 0.9, 0.0], [0.0, 0.05, 0.0]])
    normals = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    field = Corner(make().grid, make().decoder)
    far, near = panels.occlusion(field, points, normals).tolist()
    assert far > 0.99 and near < 0.75 and len(panels.occlusion(field, points[:0], normals[:0])) == 0


def test_views_have_colours_where_they_are_learnt():
    assert [len(pictures) for pictures in panels.views(make(), 16).values()] == [3, 3]
    views = panels.views(make(colored=True), 16)
    assert all(picture.shape == (16, 16, 3) for pictures in views.values() for picture in pictures)
    red, green, blue = views["front"][3][8, 8].astype(int)
    assert red == green == blue and 64 < red < 150  # gray, lit
    assert panels.together(views).shape[2] == 3


def test_slices_are_blue_inside_red_outside_and_lined_where_the_surface_is():
    picture = panels.slice_through(make(), 2, 200).astype(int)
    assert picture[100, 100, 2] > picture[100, 100, 0] and picture[100, 196, 0] > picture[100, 196, 2]
    dark = picture[100].sum(1) < 150
    assert np.abs(np.flatnonzero(dark) - 99.5).mean().round() == 50 and dark.sum() <= 8
    ramp = np.linspace(0.01, 0.95, 941, dtype=np.float32)
    lines = panels.isolines(np.stack([ramp, ramp]), 0.001)[0].sum(1).astype(int)
    dips = np.flatnonzero((lines[2:-2] < lines[:-4]) & (lines[2:-2] < lines[4:])) + 2
    assert set(np.round((dips + 10) / 1000, 1)) >= {0.1, 0.2, 0.5, 0.9}
