from __future__ import annotations

import math

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.encoding import PositionalGrid, directional, positional
from treadle.fields.grids.dense import DenseGrid


def test_points_come_first_then_sines_and_cosines_of_rising_frequency():
    x, y = 0.3, -0.7
    found = positional(torch.tensor([[x, y]], dtype=torch.float64), 2)
    waves = [f(2**k * math.pi * c) for k in (0, 1) for f in (math.sin, math.cos) for c in (x, y)]
    torch.testing.assert_close(found, torch.tensor([[x, y, *waves]], dtype=torch.float64))


def test_no_frequencies_are_the_points_and_no_points_are_none():
    points = torch.rand(5, 3)
    assert positional(points, 0) is points
    assert positional(points[:0], 4).shape == (0, 27)


def test_directions_have_27_values():
    assert directional(torch.eye(3)).shape == (3, 27)


@pytest.mark.parametrize("frequencies", [-1, 17])
def test_frequencies_out_of_range_are_refused(frequencies):
    with pytest.raises(UsageError, match="frequencies is"):
        positional(torch.zeros(1, 3), frequencies)
    with pytest.raises(UsageError, match="frequencies is"):
        PositionalGrid(None, frequencies)


def test_a_grid_with_positions_has_both_and_lod_leaves_the_positions():
    inner = DenseGrid(3, levels=2, features=2, n_min=3, n_max=5)
    with torch.no_grad():
        inner.table.uniform_(-1, 1)
    grid, points = PositionalGrid(inner, 3), torch.rand(20, 3) * 2 - 1
    found = grid(points)
    assert (grid.width, grid.levels, grid.dimensions) == (4 + 21, 2, 3) == (found.shape[1], 2, 3)
    torch.testing.assert_close(found, torch.cat((inner(points), positional(points, 3)), 1))
    torch.testing.assert_close(grid(points, 0), torch.cat((inner(points, 0), positional(points, 3)), 1))
    assert "frequencies=3" in repr(grid)


def test_without_a_grid_there_are_the_points_alone():
    points = torch.rand(4, 2)
    assert torch.equal(PositionalGrid(None, 0, 2)(points), points)
    assert PositionalGrid(None, 5, 2).width == 22
    assert not list(PositionalGrid(None, 5, 2).parameters())
