from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.grids.dense import DenseGrid
from treadle.fields.grids.summed import SummedGrid

BOTH = pytest.mark.parametrize("dimensions", [2, 3])


@BOTH
def test_every_vertex_has_a_row_of_its_own(dimensions):
    grid = DenseGrid(dimensions, levels=3, features=2, n_min=3, n_max=7)
    assert all(grid.layout.dense) and grid.table.shape == (sum(n**dimensions for n in grid.layout.resolutions), 2)
    assert 0 < grid.table.abs().max() <= 1e-4
    assert f"resolutions={grid.layout.resolutions}" in repr(grid)


@BOTH
def test_levels_finer_than_lod_are_zero(dimensions):
    grid = DenseGrid(dimensions, levels=3, features=2, n_min=3, n_max=7)
    points = torch.rand(10, dimensions) * 2 - 1
    whole = grid(points)
    for lod in range(3):
        assert torch.equal(grid(points, lod)[:, : 2 * lod + 2], whole[:, : 2 * lod + 2])
        assert (grid(points, lod)[:, 2 * lod + 2 :] == 0).all()
    with pytest.raises(UsageError, match="lod is 3"):
        grid(points, 3)


@pytest.mark.parametrize(("dimensions", "n_max"), [(3, 257), (2, 4097)])
def test_a_level_too_large_to_be_dense_is_refused(dimensions, n_max):
    with pytest.raises(UsageError, match=rf"n_max is {n_max}: expected at most {n_max - 1}"):
        DenseGrid(dimensions, 2, 2, 16, n_max)


def test_it_learns_a_function_in_space():
    torch.manual_seed(0)
    grid = DenseGrid(3, levels=2, features=1, n_min=5, n_max=9)
    optimizer = torch.optim.Adam(grid.parameters(), lr=0.05)
    points = (torch.rand(4000, 3) * 2 - 1) * 0.7
    target = points.norm(dim=1) - 0.5
    for _ in range(80):
        optimizer.zero_grad()
        loss = (grid(points).sum(1) - target).square().mean()
        loss.backward()
        optimizer.step()
    fresh = (torch.rand(2000, 3) * 2 - 1) * 0.7
    assert (grid(fresh).sum(1) - (fresh.norm(dim=1) - 0.5)).abs().mean() < 0.02


def test_summed_levels_are_the_sum_of_those_that_count():
    inner = DenseGrid(2, levels=3, features=2, n_min=3, n_max=7)
    with torch.no_grad():
        inner.table.uniform_(-1, 1)
    grid, points = SummedGrid(inner), torch.rand(20, 2) * 2 - 1
    side_by_side = inner(points)
    assert (grid.width, grid.levels, grid.dimensions) == (2, 3, 2)
    torch.testing.assert_close(grid(points), side_by_side[:, :2] + side_by_side[:, 2:4] + side_by_side[:, 4:])
    torch.testing.assert_close(grid(points, 1), side_by_side[:, :2] + side_by_side[:, 2:4])
