"""CIE L*a*b*: beside scikit-image, there and back, known colours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import color

from treadle.images.lab import AB_RANGE, lab_to_rgb, rgb_to_lab


def every(step=17):
    """Colours all over the cube, (..., 3) uint8."""
    return np.stack(np.meshgrid(*[np.arange(0, 256, step, dtype=np.uint8)] * 3, indexing="ij"), axis=-1)


def test_it_is_scikit_images():
    found, expected = rgb_to_lab(every()), color.rgb2lab(every())
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(lab_to_rgb(expected), color.lab2rgb(expected), atol=2e-4)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((255, 255, 255), (100, 0, 0)),
        ((119, 119, 119), (50.03, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)
def test_known_colours(rgb, lab):
    np.testing.assert_allclose(rgb_to_lab(np.array([rgb], np.uint8))[0], lab, atol=0.02)


@pytest.mark.parametrize(("kind", "white"), [("uint8", 255), ("uint16", 65535), ("float32", 1.0)])
def test_there_and_back_is_where_it_started_in_every_type(kind, white):
    rgb = (np.random.default_rng(0).random((20, 30, 3)) * white).astype(kind)
    np.testing.assert_allclose(lab_to_rgb(rgb_to_lab(rgb)), rgb / white, atol=3e-5)
    if kind == "uint8":
        np.testing.assert_array_equal(np.rint(lab_to_rgb(rgb_to_lab(rgb)) * 255), rgb)


def test_all_of_srgb_is_within_the_range_of_a_and_b():
    ab = rgb_to_lab(every(5))[..., 1:]
    assert AB_RANGE[0] < ab.min() < -107 and 98 < ab.max() < AB_RANGE[1]


@given(st.floats(0, 100), st.floats(-110, 110), st.floats(-110, 110))
def test_any_numbers_are_a_colour(light, a, b):
    rgb = lab_to_rgb(np.array([light, a, b]))
    assert rgb.shape == (3,) and ((rgb >= 0) & (rgb <= 1)).all()
