from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from treadle.images.patches import Patches, laplacian_pyramid

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")


def swd(outputs, targets):
    sets = Patches(), Patches()
    for each, pictures in zip(sets, (outputs, targets), strict=True):
        each.add(pictures)
    return sets[0].distance(sets[1])


def noise(seed, shape=(4, 3, 32, 32), std=0.2):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, std, shape)).float()


def test_the_pyramid_adds_up_and_halves_down_to_16_pixels():
    pictures = noise(0, (2, 3, 70, 128))
    levels = laplacian_pyramid(pictures)
    assert [tuple(level.shape[2:]) for level in levels] == [(70, 128), (35, 64), (18, 32)]
    assert [level.shape[-1] for level in laplacian_pyramid(noise(0, (1, 1, 256, 256)))] == [256, 128, 64, 32, 16]
    assert len(laplacian_pyramid(noise(0, (1, 1, 31, 400)))) == 1


def test_the_pyramid_against_plain_sums():
    """The finest level of a small picture: itself less its smoothed, halved, spread and smoothed self, in float64."""
    picture = noise(0, (1, 1, 32, 34))
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256

    def smooth(values):
        height, width = values.shape
        mirrored = np.pad(values, 2, mode="reflect")
        return sum(kernel[i, j] * mirrored[i : i + height, j : j + width] for i in range(5) for j in range(5))

    values = picture[0, 0].double().numpy()
    coarse, spread = smooth(values)[::2, ::2], np.zeros_like(values)
    spread[::2, ::2] = coarse
    fine, rest = laplacian_pyramid(picture)
    np.testing.assert_allclose(rest[0, 0], coarse, atol=1e-6)
    np.testing.assert_allclose(fine[0, 0], values - 4 * smooth(spread), atol=1e-6)


def test_what_is_flat_or_a_slope_has_no_details():
    flat, slope = torch.full((1, 1, 32, 32), 0.3), torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    assert laplacian_pyramid(flat)[0].abs().max() < 1e-6
    assert laplacian_pyramid(slope)[0][:, :, 8:-8, 8:-8].abs().max() < 1e-6


def test_against_sliced_distances_of_scipy_in_other_directions():
    """Pictures of 7 x 7 are one patch each, so all is known: float64, SciPy's distance, directions of our own."""
    some, others = noise(0, (30, 2, 7, 7)), noise(1, (20, 2, 7, 7)).abs()

    def normalised(pictures):
        values = pictures.double().numpy()
        return ((values - values.mean((0, 2, 3), keepdims=True)) / values.std((0, 2, 3), keepdims=True)).reshape(
            len(values), -1
        )

    first, second = normalised(some.clamp(-1, 1)), normalised(others.clamp(-1, 1))
    directions = np.random.default_rng(5).standard_normal((3000, 98))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    wanted = np.mean([stats.wasserstein_distance(first @ each, second @ each) for each in directions])
    assert swd(some, others) == pytest.approx(wanted, rel=0.03)


def test_equal_sets_are_0_apart_and_others_are_not():
    pictures = noise(0)
    assert swd(pictures, pictures.clone()) == 0
    stripes = torch.sign(torch.cos(torch.arange(32) / 2.0)).expand(4, 3, 32, 32) * 0.5
    assert swd(noise(1), pictures) < 0.15 < 0.3 < swd(stripes, pictures)


def test_contrast_is_normalised_away_and_flat_pictures_are_far_from_all():
    pictures = noise(0)
    assert swd(pictures / 4, pictures) == pytest.approx(0, abs=1e-5)
    assert swd(torch.zeros(4, 3, 32, 32), pictures) > 0.6
    assert swd(torch.zeros(4, 3, 32, 32), torch.full((4, 3, 32, 32), 0.7)) < 1e-3


def test_sets_of_any_size_can_be_compared():
    few, many = noise(0, (2, 3, 32, 32)), noise(1, (9, 3, 32, 32))
    assert swd(few, many) == swd(many, few) < 0.15
    assert math.isnan(swd(few, many[:0]))


def test_no_more_patches_are_kept_than_allowed():
    pictures = noise(0, (40, 3, 16, 16))
    few, all_of_them = Patches(most=512), Patches()
    for start in range(0, 40, 8):
        few.add(pictures[start : start + 8])
    all_of_them.add(pictures)
    assert few.kept <= 512 < all_of_them.kept == 40 * 128
    assert few.distance(all_of_them) < 0.1


def test_the_fourth_channel_is_alpha():
    pictures = noise(0)
    with_alpha = torch.cat([pictures, noise(1, (4, 1, 32, 32))], 1)
    assert swd(with_alpha, pictures) == 0
