from __future__ import annotations

import numpy as np
import pytest
from colmap_writer import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Photograph
from treadle.cameras.resizing import at_centres, mean_over_areas, resized, smaller_size
from treadle.errors import UsageError


def photograph(pixels, **others):
    height, width = pixels.shape[:2]
    return Photograph(Camera(width, height, 30, 31, 11.5, 8.25, np.eye(4), "a.png"), pixels, **others)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.data())
def test_means_are_those_over_areas(width, height, data):
    """Each pixel cut into as many equal parts as it takes: then every area holds whole ones."""
    new = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    values = noise(height, width, 2, seed=width * 17 + height)
    fine = values.repeat(new[1], axis=0).repeat(new[0], axis=1).astype(np.float64)
    expected = fine.reshape(new[1], height, new[0], width, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(mean_over_areas(values, *new), expected, rtol=1e-5, atol=1e-4)


def test_cameras_and_points_follow_the_real_change_of_each_side():
    points = np.array([[11.5, 8.25, 4.0]], np.float32)
    made = resized(photograph(noise(16, 24, 3), points=points), 7, 5)
    assert made.pixels.shape == (5, 7, 3) and made.camera.size == (7, 5)
    np.testing.assert_allclose(made.camera.intrinsics, (30 * 7 / 24, 31 * 5 / 16, 11.5 * 7 / 24, 8.25 * 5 / 16))
    np.testing.assert_allclose(made.points, [[11.5 * 7 / 24, 8.25 * 5 / 16, 4.0]], rtol=1e-6)


def test_a_pixel_counts_where_all_of_it_did_and_depth_and_normals_are_not_mixed():
    counts = np.ones((8, 8), bool)
    counts[0, 5] = False
    depth = np.arange(64, dtype=np.float32).reshape(8, 8)
    normals = np.repeat(depth[:, :, None], 3, axis=2)
    made = resized(photograph(noise(8, 8, 3), mask=counts, depth=depth, normals=normals), 2, 2)
    assert made.mask.tolist() == [[True, False], [True, True]]
    assert made.depth.tolist() == [[18, 22], [50, 54]]
    assert made.normals[1, 1].tolist() == [54, 54, 54]


def test_colours_are_weighted_by_alpha():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (200, 100, 50, 255)
    pixels[1, 1] = (0, 255, 255, 0)
    assert resized(photograph(pixels), 1, 1).pixels.tolist() == [[[200, 100, 50, 64]]]


def test_the_same_size_is_the_same_photograph_and_larger_ones_are_refused():
    given = photograph(noise(4, 6, 3))
    assert resized(given, 6, 4) is given
    with pytest.raises(UsageError, match=r"a\.png is 6 x 4 pixels and cannot be made 7 x 4: only smaller"):
        resized(given, 7, 4)


def test_sizes_are_rounded_and_never_nothing():
    assert smaller_size((481, 320), 2) == (240, 160)
    assert smaller_size((3, 1000), 8) == (1, 125)
    assert smaller_size((100, 99), 1.5) == (67, 66)


def test_the_middle_of_an_area_stands_for_it():
    assert at_centres(np.arange(9)[None], 3, 1).tolist() == [[1, 4, 7]]
    assert at_centres(np.arange(2)[:, None], 1, 4)[:, 0].tolist() == [0, 0, 1, 1]
