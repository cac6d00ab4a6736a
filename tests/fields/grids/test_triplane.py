from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.grids.summed import SummedGrid
from treadle.fields.grids.triplane import TriplaneGrid


def test_a_level_has_three_planes():
    grid = TriplaneGrid(levels=2, features=2, base=2)
    assert grid.table.shape == (3 * (25 + 81), 2) and 0 < grid.table.abs().max() <= 1e-4
    assert (grid.width, grid.levels, grid.dimensions) == (12, 2, 3) and "levels=2 to 3" in repr(grid)
    assert SummedGrid(grid).width == 6


def test_levels_finer_than_lod_are_zero():
    grid, points = TriplaneGrid(levels=2, features=2, base=2), torch.rand(10, 3) * 2 - 1
    found = grid(points, 0)
    assert torch.equal(found[:, :6], grid(points)[:, :6]) and (found[:, 6:] == 0).all()
    with pytest.raises(UsageError, match="lod is 2"):
        grid(points, 2)


def test_it_learns_a_function_in_space():
    torch.manual_seed(0)
    grid, head = TriplaneGrid(levels=2, features=2, base=3), torch.nn.Linear(12, 1)
    optimizer = torch.optim.Adam([*grid.parameters(), *head.parameters()], lr=0.02)
    points = torch.rand(4000, 3) * 2 - 1
    for _ in range(100):
        optimizer.zero_grad()
        loss = (head(grid(points))[:, 0] - points.square().sum(1)).square().mean()
        loss.backward()
        optimizer.step()
    fresh = torch.rand(2000, 3) * 2 - 1
    assert (head(grid(fresh))[:, 0] - fresh.square().sum(1)).abs().mean() < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 9}, "features is 9"),
        ({"levels": 0}, "levels 0"),
        ({"base": 9, "levels": 5}, "base is 9"),
        ({"base": -1}, "base is -1"),
    ],
)
def test_what_cannot_be_built_is_named(options, message):
    with pytest.raises(UsageError, match=message):
        TriplaneGrid(**options)
