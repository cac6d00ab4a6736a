"""Rays through pixels' centres, and points back in the picture."""

from __future__ import annotations

import numpy as np
import pytest

from treadle.cameras.camera import Camera
from treadle.cameras.interpolation import world_to_camera
from treadle.cameras.rays import project, rays


def some_camera() -> Camera:
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    return Camera(7, 5, 9.0, 11.0, 3.1, 2.8, world_to_camera(rotation, np.array([1.0, -2.0, 0.5])), "some")


def test_the_ray_through_the_principal_point_is_the_optical_axis() -> None:
    camera = Camera(3, 5, 2.0, 2.0, 1.5, 2.5, np.eye(4))
    origins, directions = rays(camera, np.float64)
    assert np.array_equal(directions[2, 1], (0, 0, 1)) and (origins == 0).all()
    assert directions[2, 2, 0] > 0 == directions[2, 2, 1], "x points right"
    assert directions[3, 1, 1] > 0 == directions[3, 1, 0], "y points down"
    assert np.allclose(directions[0, 0], np.array([-0.5, -1, 1]) / 1.5, atol=1e-15), "through (.5, .5)"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projecting_takes_points_on_rays_back_to_pixels_centres(dtype: type) -> None:
    camera = some_camera()
    origins, directions = rays(camera, dtype)
    assert origins.dtype == directions.dtype == dtype and origins.shape == directions.shape == (5, 7, 3)
    tight = 1e-12 if dtype is np.float64 else 1e-5
    assert np.abs(np.linalg.norm(directions, axis=-1) - 1).max() < tight
    far = np.random.default_rng(0).uniform(1, 9, (5, 7, 1))
    pixels, depths = project(camera, origins + far * directions)
    columns, rows = np.meshgrid(np.arange(7) + 0.5, np.arange(5) + 0.5)
    assert np.abs(pixels - np.stack([columns, rows], axis=-1)).max() < 10 * tight
    assert np.abs(depths - (far * directions)[..., :] @ camera.world_to_camera[2, :3]).max() < 10 * tight
    assert (depths > 0).all()


def test_what_is_behind_has_a_negative_depth_and_what_is_beside_does_no_harm() -> None:
    camera = some_camera()
    axis = camera.world_to_camera[2, :3]
    depths = project(camera, camera.center + np.outer([2.0, 0.0, -2.0], axis))[1]
    assert np.abs(depths - (2, 0, -2)).max() < 1e-12
