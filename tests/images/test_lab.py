"""CIE L*a*b*: beside scikit-image, there and back, known colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import color

from treadle.images.lab import AB_MOST, lab_to_rgb, rgb_to_lab


def every(step=17):
    """Colours all over the cube, (3, H, W) in [0, 1]."""
    values = np.arange(0, 256, step, dtype=np.float32) / 255
    return torch.from_numpy(np.stack(np.meshgrid(values, values, values, indexing="ij"))).flatten(2)


def colour(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).reshape(3, 1, 1)


def test_it_is_scikit_images():
    expected = color.rgb2lab(every().movedim(0, -1).double().numpy())
    np.testing.assert_allclose(rgb_to_lab(every()).movedim(0, -1), expected, atol=2e-3)
    back = lab_to_rgb(torch.from_numpy(expected).movedim(-1, 0))
    np.testing.assert_allclose(back.movedim(0, -1), color.lab2rgb(expected), atol=2e-4)


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
    np.testing.assert_allclose(rgb_to_lab(colour(*rgb) / 255).flatten(), lab, atol=0.02)


def test_there_and_back_is_where_it_started():
    rgb = torch.rand(2, 3, 9, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=5e-5, rtol=0)
    assert torch.equal((lab_to_rgb(rgb_to_lab(every(15))) * 255).round(), (every(15) * 255).round())


def test_all_of_srgb_is_within_the_range_of_a_and_b():
    ab = rgb_to_lab(every(5))[1:]
    assert -AB_MOST < ab.min() < -107 and 98 < ab.max() < AB_MOST


@given(st.floats(0, 100), st.floats(-110, 110), st.floats(-110, 110))
def test_any_numbers_are_a_colour_and_have_a_gradient(light, a, b):
    lab = colour(light, a, b).float().requires_grad_()
    rgb = lab_to_rgb(lab)
    rgb.sum().backward()
    assert rgb.shape == (3, 1, 1) and ((rgb >= 0) & (rgb <= 1)).all()
    assert lab.grad.isfinite().all()
