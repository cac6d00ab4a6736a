from __future__ import annotations

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.kernels.neighbours import neighbour_distances


def brute(points, count):
    squared = ((points[:, None] - points[None]) ** 2).sum(2)
    np.fill_diagonal(squared, np.inf)
    return np.sort(squared, 1)[:, :count]


@pytest.mark.parametrize("shape", ["cube", "line", "clumps", "grid"])
def test_they_are_those_that_looking_at_all_finds(shape):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(500, 3))
    if shape == "line":
        points[:, 1:] = 0
    elif shape == "clumps":
        points = np.concatenate([points * 1e-3, points[:40] * 100, np.zeros((9, 3))])
    elif shape == "grid":
        points = np.round(points * 2)  # many at the same place
    np.testing.assert_allclose(neighbour_distances(points), brute(points, 3), rtol=1e-12, atol=1e-12)


def test_fewer_points_than_neighbours():
    found = neighbour_distances(np.array([[0.0, 0, 0], [3.0, 4, 0]]))
    assert found.tolist() == [[25.0, np.inf, np.inf]] * 2
    assert neighbour_distances(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("points", [np.zeros((3, 2)), np.full((3, 3), np.nan)])
def test_what_is_no_points_is_refused(points):
    with pytest.raises(UsageError, match=r"expected finite points \(n, 3\)"):
        neighbour_distances(points)
