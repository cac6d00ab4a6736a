from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.images.fid import FID, frechet_distance
from treadle.images.inception import Inception


def textbook(first, second):
    """The formula as it is written, with scipy's square root of a matrix."""
    linalg = pytest.importorskip("scipy.linalg")
    covariances = [np.cov(points, rowvar=False) for points in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = first.mean(axis=0) - second.mean(axis=0)
    return shift @ shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root)


@pytest.mark.parametrize(("n", "m", "dimensions"), [(40, 60, 5), (500, 300, 32), (9, 200, 8)])
def test_as_the_formula(n, m, dimensions):
    rng = np.random.default_rng(n)
    mixing = rng.normal(size=(2, dimensions, dimensions))
    first, second = rng.normal(size=(n, dimensions)) @ mixing[0], rng.normal(size=(m, dimensions)) @ mixing[1] + 1
    assert frechet_distance(first, second) == pytest.approx(textbook(first, second), rel=1e-9)


def test_gaussians_along_axes_with_an_analytic_answer():
    """For diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2, standard deviation by standard deviation."""
    corners = np.array([[x, y] for x in (-1, 1) for y in (-1, 1)]) * math.sqrt(3 / 4)  # covariance: the identity
    first, second = corners * [2, 5] + [1, 0], corners * [3, 1] + [4, 4]
    assert frechet_distance(first, second) == pytest.approx((3**2 + 4**2) + (1**2 + 4**2), rel=1e-12)


def test_fewer_points_than_dimensions():
    """Covariances are singular; by adding dimensions in which nothing happens the distance must not change."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 4)), rng.normal(size=(5, 4)) * 2
    turn = np.linalg.qr(rng.normal(size=(64, 64)))[0][:4]
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(textbook(first, second), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 12), st.integers(1, 6))
def test_a_distance(seed, n, m, dimensions):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n, dimensions)), rng.normal(size=(m, dimensions)) * 3 + 1
    distance = frechet_distance(first, second)
    assert distance >= 0
    assert distance == pytest.approx(frechet_distance(second, first), rel=1e-9, abs=1e-9)
    assert distance == pytest.approx(frechet_distance(first[::-1], second), rel=1e-9, abs=1e-9)
    assert distance == pytest.approx(frechet_distance(first + 7, second + 7), rel=1e-9, abs=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_too_few_or_not_finite():
    points = np.zeros((3, 2))
    with pytest.raises(UsageError, match="two or more pictures in each set, not 3 and 1"):
        frechet_distance(points, points[:1])
    assert math.isnan(frechet_distance(points, np.array([[0.0, math.nan], [0, 0]])))


@pytest.fixture(scope="module")
def features():
    """A stand-in for the network, exact and quick: a picture's mean colour, and zeros."""

    def of(pictures):
        return torch.nn.functional.pad(pictures.mean(dim=(2, 3)), (0, 2045))

    return of


@pytest.fixture
def fid(weights_file, features, monkeypatch):
    result = FID(weights_file(Inception()))
    monkeypatch.setattr(result.network, "forward", features)
    return result


def test_the_distance_of_batches_is_that_of_all_their_pictures(fid, features):
    outputs = torch.rand(7, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    targets = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)) - 1
    with pytest.raises(UsageError, match="not 0 and 0"):
        fid.value()
    fid.add(outputs[:4], targets[:1])
    fid.add(outputs[4:], targets[1:])
    expected = textbook(features(outputs)[:, :3].numpy(), features(targets)[:, :3].numpy())
    assert fid.value() == pytest.approx(expected, rel=1e-2)  # rounding to 8 bits is between the two
    assert expected > 0.5


def test_equal_sets_have_no_distance_and_nan_shows(fid, noise):
    pictures = torch.cat([noise(seed, (8, 8)) for seed in range(3)])
    fid.add(pictures, pictures.flip(0))
    assert fid.value() == pytest.approx(0, abs=1e-9)
    fid.add(torch.full((1, 3, 8, 8), math.nan), pictures)
    assert math.isnan(fid.value())


def test_real_network_sees_gray_and_alpha(weights_file, noise):
    fid = FID(str(weights_file(Inception())))
    gray, colour = noise(0, (40, 40), channels=1), noise(1, (30, 50), channels=4)
    fid.add(torch.cat([gray, gray]), colour.repeat(2, 1, 1, 1))
    fid.add(gray.expand(-1, 3, -1, -1), colour[:, :3])
    np.testing.assert_allclose(fid.outputs[0][0], fid.outputs[1][0], atol=1e-4)
    np.testing.assert_allclose(fid.targets[0][0], fid.targets[1][0], atol=1e-4)
    assert fid.outputs[0].dtype == np.float32
    assert fid.value() > 0


def test_the_file_of_something_else_is_refused(weights_file):
    with pytest.raises(
        UsageError, match="does not hold the weights of FID's Inception-v3: it has no tensor 'Conv2d_1a"
    ):
        FID(weights_file(torch.nn.Conv2d(3, 4, 3)))
