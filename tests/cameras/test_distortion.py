from __future__ import annotations

import numpy as np
import pytest
from colmap_writer import noise

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Photograph
from treadle.cameras.distortion import Distortion, divided, premultiplied, straightened

BARREL = Distortion("brown", (-0.1, 0.01))


def camera(width, height, focal=40.0):
    return Camera(width, height, focal, focal * 1.1, width / 2 - 1, height / 2 + 0.5, np.eye(4), "a.png")


@pytest.mark.parametrize(
    "coefficients", [(0.1,), (-0.1, 0.05), (0.1, -0.05, 0.01, -0.02), (0.1, 0.2, 0.01, 0.02, 0.3, 0.15, 0.1, -0.05)]
)
def test_brown_bends_as_opencv(coefficients):
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    xy = np.random.default_rng(0).uniform(-0.7, 0.7, (50, 2))
    values = np.array((*coefficients, *(0.0,) * (8 - len(coefficients))))
    rays = np.concatenate((xy, np.ones((50, 1))), axis=1)
    expected = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.eye(3), values)[0][:, 0]
    np.testing.assert_allclose(np.stack(Distortion("brown", coefficients).distort(*xy.T), axis=1), expected, atol=1e-12)


def test_fisheye_bends_as_opencv():
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    xy = np.random.default_rng(0).uniform(-2, 2, (50, 2))
    xy[0] = 0
    values = (0.05, -0.01, 0.004, -0.001)
    expected = cv2.fisheye.distortPoints(xy[None], np.eye(3), np.array(values))[0]
    np.testing.assert_allclose(np.stack(Distortion("fisheye", values).distort(*xy.T), axis=1), expected, atol=1e-12)


def test_a_fisheye_is_a_lens_even_without_coefficients():
    assert Distortion("brown", (0.0, 0.0)).is_none and not BARREL.is_none
    lens = Distortion("fisheye", (0.0,) * 4)
    assert not lens.is_none
    np.testing.assert_allclose(lens.distort(np.ones(1), np.zeros(1))[0], np.pi / 4)


def test_beyond_the_angle_at_which_the_polynomial_turns_back_nothing_is_seen():
    """r (1 - 0.1 r^2) grows up to r = sqrt(1 / 0.3), and falls from there on."""
    edge = np.sqrt(1 / 0.3)
    x = np.array([0.0, edge - 0.01, edge + 0.01, 3.0])
    bent, _ = Distortion("brown", (-0.1,)).distort(x, np.zeros(4))
    assert np.isnan(bent).tolist() == [False, False, True, True]
    fisheye, _ = Distortion("fisheye", (-0.4,)).distort(np.array([0.5, 5.0]), np.zeros(2))
    assert np.isnan(fisheye).tolist() == [False, True]


def scene(columns, rows):
    """A smooth picture, 0 to 255, at any places of a pinhole's picture."""
    return np.stack([120 + 60 * np.sin(columns / 9), 120 + 50 * np.cos(rows / 7), 100 + columns + rows], axis=-1)


def centres(width, height):
    return np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)


def seen_through(lens, shot):
    """What a camera with this lens photographs of `scene`: its inverse, by Newton's method, pixel by pixel."""
    columns, rows = centres(*shot.size)
    wanted = np.stack(((columns - shot.cx) / shot.fx, (rows - shot.cy) / shot.fy))
    found = wanted.copy()
    for _ in range(50):
        found += wanted - np.stack(lens.distort(found[0], found[1]))
    return np.rint(scene(found[0] * shot.fx + shot.cx, found[1] * shot.fy + shot.cy)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("lens", [BARREL, Distortion("brown", (0.05, 0, 0.01, -0.01)), Distortion("fisheye", (0.02,))])
def test_a_photograph_is_what_the_pinhole_sees(lens):
    shot = camera(60, 40, 70.0)
    made = straightened(Photograph(shot, seen_through(lens, shot)), lens)
    expected = scene(*centres(60, 40))
    counts = np.ones((40, 60), bool) if made.mask is None else made.mask
    assert counts.mean() > 0.9 and made.camera is shot
    assert np.abs(made.pixels - expected)[counts].max() < 1.5
    # The lens has moved something: without it the picture is another one.
    assert np.abs(seen_through(lens, shot) - expected)[counts].max() > 5


def test_what_lies_outside_the_picture_is_masked_out_and_a_barrel_leaves_nothing_outside():
    shot = camera(30, 20)
    assert straightened(Photograph(shot, noise(20, 30, 3)), Distortion("brown", (-0.2,))).mask is None
    mask = straightened(Photograph(shot, noise(20, 30, 3)), Distortion("brown", (0.8,))).mask
    assert not mask[0, 0] and not mask[-1, -1] and mask[10, 15]
    assert 0.3 < mask.mean() < 0.95


def test_a_mask_grows_by_the_pixels_that_are_mixed_with_it_and_depth_is_never_mixed():
    shot = camera(30, 20)
    counts = np.ones((20, 30), bool)
    counts[:, :15] = False
    depth = np.where(counts, np.float32(2), np.float32(7))
    made = straightened(Photograph(shot, noise(20, 30, 3), counts, depth), BARREL)
    assert set(np.unique(made.depth)) == {2, 7}
    assert not made.mask[:, :14].any() and made.mask[:, 18:].all()
    assert (made.depth[made.mask] == 2).all()


def test_transparent_pixels_give_no_colour_to_their_neighbours():
    shot = camera(30, 20)
    pixels = np.full((20, 30, 4), 255, np.uint8)
    pixels[:, :15] = (0, 255, 0, 0)
    pixels[:, 15:, :3] = (200, 100, 50)
    made = straightened(Photograph(shot, pixels), BARREL).pixels
    assert (made[made[:, :, 3] > 0][:, :3] == (200, 100, 50)).all()
    assert len(np.unique(made[:, :, 3])) > 2


def test_alpha_comes_and_goes_without_loss():
    pixels = noise(16, 16, 4)
    pixels[0, 0, 3] = 0
    back = divided(premultiplied(pixels))
    np.testing.assert_array_equal(back[1:], pixels[1:] * (pixels[1:, :, 3:] > 0))
    assert back[0, 0].tolist() == [0, 0, 0, 0]
