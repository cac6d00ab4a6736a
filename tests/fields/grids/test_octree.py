from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from treadle import Trainer
from treadle.engine.ema import EMA
from treadle.engine.rows import RowEdit
from treadle.errors import UsageError
from treadle.fields.grids.octree import OctreeGrid, cells_at, sparse_grids
from treadle.testing import capture, check_resume

SHELL = torch.tensor([c for c in torch.cartesian_prod(*[torch.arange(8)] * 3).tolist() if any(k in (0, 7) for k in c)])


def shell(**options):
    return OctreeGrid(SHELL, **{"levels": 3, "features": 2, "base": 1} | options)


def filled(grid):
    with torch.no_grad():
        grid.table.uniform_(-1, 1)
    return grid


def test_it_has_the_cells_it_is_given():
    grid = OctreeGrid(torch.cat((SHELL, SHELL.flip(0))), levels=3, features=2, base=1)
    assert {tuple(c) for c in grid.cells.tolist()} == {tuple(c) for c in SHELL.tolist()} and len(grid.cells) == len(
        SHELL
    )
    centre = grid.centres()[grid.cells.eq(torch.tensor([7, 0, 3])).all(1)]
    torch.testing.assert_close(centre, torch.tensor([[0.875, -0.875, -0.125]]))
    assert grid.table.shape == (grid.index.rows, 2) and 0 < grid.table.abs().max() <= 1e-4
    assert f"cells={len(SHELL)}" in repr(grid)


def test_without_cells_all_of_them_are_there():
    grid = filled(OctreeGrid(levels=2, features=1, base=1))
    assert len(grid.cells) == 64 and grid.index.rows == 27 + 125
    assert (grid(torch.rand(50, 3) * 2 - 1) != 0).all()


def test_levels_finer_than_lod_are_zero_and_what_is_outside_has_coarser_ones_alone():
    grid, points = filled(shell()), torch.rand(100, 3) * 2 - 1
    whole = grid(points)
    assert torch.equal(grid(points, 0)[:, :2], whole[:, :2]) and (grid(points, 0)[:, 2:] == 0).all()
    assert (whole[:, :4] != 0).all()
    inner = (points.abs() < 0.75).all(1)
    assert (whole[inner, 4:] == 0).all() and (whole[~inner, 4:] != 0).all()
    with pytest.raises(UsageError, match="lod is 3"):
        grid(points, 3)


def test_coarser_levels_reach_beyond_the_finer_ones():
    grid = filled(OctreeGrid(torch.tensor([[16, 16, 16]]), levels=4, features=1, base=2))  # one cell, of side 1/16
    distances = torch.tensor([0.03, 0.12, 0.3, 0.8])
    found = grid(distances[:, None].expand(4, 3)) != 0
    assert found.tolist() == [[True] * 4, [True, True, True, False], [True, True, False, False], [True] + [False] * 3]


def test_it_learns_a_surface():
    torch.manual_seed(0)
    near = (torch.cartesian_prod(*[torch.arange(16)] * 3) + 0.5) / 8 - 1
    cells = torch.cartesian_prod(*[torch.arange(16)] * 3)[(near.norm(dim=1) - 0.6).abs() < 0.15]
    grid = OctreeGrid(cells, levels=3, features=1, base=2)
    optimizer = torch.optim.Adam(grid.parameters(), lr=0.02)
    points = torch.rand(8000, 3) * 2 - 1
    points = points[(points.norm(dim=1) - 0.6).abs() < 0.08]
    errors = []
    for _ in range(120):
        optimizer.zero_grad()
        error = grid(points).sum(1) - (points.norm(dim=1) - 0.6)
        error.square().mean().backward()
        optimizer.step()
        errors.append(error.abs().mean().item())
    assert errors[0] > 0.03 and errors[-1] < 0.003


def test_pruning_keeps_what_is_left_as_it_was():
    grid = filled(shell())
    points = torch.rand(2000, 3) * 2 - 1
    before, rows = grid(points), grid.index.rows
    keep = grid.centres()[:, 0] > 0
    gone = grid.prune(keep, RowEdit)
    assert gone == rows - grid.index.rows > 0 and grid.table.shape == (grid.index.rows, 2)
    assert len(grid.cells) == int(keep.sum()) and (grid.cells[:, 0] >= 4).all()
    after, right = grid(points), points[:, 0] > 0
    assert torch.equal(after[right], before[right])
    assert torch.equal(after[:, :2], before[:, :2]) and (after[~right, 4:] == 0).all()


def test_moments_and_averages_follow_their_rows():
    grid = filled(shell())
    optimizer, ema = torch.optim.Adam(grid.parameters(), lr=0.1), EMA(grid)
    grid(torch.rand(500, 3) * 2 - 1).square().sum().backward()
    optimizer.step()
    ema.update()
    keep = grid.centres()[:, 2] < -0.5
    other = copy.deepcopy(grid)
    other.prune(keep, RowEdit)
    stay = grid.index.rows_kept(other.index)
    moments = {name: value.clone() for name, value in optimizer.state[grid.table].items()}
    shadow = ema.shadow_of(grid.table).clone()
    grid.prune(keep, lambda rows: RowEdit(rows, [optimizer], [ema]))
    assert torch.equal(grid.table, other.table)
    assert torch.equal(optimizer.state[grid.table]["exp_avg"], moments["exp_avg"][stay])
    assert torch.equal(optimizer.state[grid.table]["exp_avg_sq"], moments["exp_avg_sq"][stay])
    assert torch.equal(ema.shadow_of(grid.table), shadow[stay])


def test_keeping_all_changes_nothing_and_keeping_nothing_is_refused():
    grid = shell()
    table, index = grid.table, grid.index
    assert grid.prune(torch.ones(len(grid.cells), dtype=torch.bool), RowEdit) == 0
    assert grid.table is table and grid.index is index
    with pytest.raises(UsageError, match="keeps no cell"):
        grid.prune(torch.zeros(len(grid.cells), dtype=torch.bool), RowEdit)
    for mask in (torch.ones(3, dtype=torch.bool), torch.ones(len(grid.cells))):
        with pytest.raises(UsageError, match=f"a mask of {len(SHELL)} cells"):
            grid.prune(mask, RowEdit)


def test_an_edit_that_fails_changes_neither_rows_nor_cells():
    grid = filled(shell())
    optimizer = torch.optim.Adam(grid.parameters())
    grid(torch.rand(50, 3)).sum().backward()
    optimizer.step()
    optimizer.state[grid.table]["exp_avg"] = torch.zeros(3, 2)  # what nothing can be done with
    before, cells = grid.table.detach().clone(), grid.cells
    with pytest.raises(UsageError):
        grid.prune(grid.centres()[:, 0] > 0, lambda rows: RowEdit(rows, [optimizer]))
    assert torch.equal(grid.table, before) and torch.equal(grid.cells, cells)
    grid(torch.rand(5, 3))


def test_a_state_of_other_cells_is_taken_over():
    pruned, points = filled(shell()), torch.rand(200, 3) * 2 - 1
    pruned.prune(pruned.centres()[:, 1] > 0, RowEdit)
    fresh = OctreeGrid(levels=3, features=2, base=1)
    fresh.load_state_dict(pruned.state_dict())
    assert torch.equal(fresh(points), pruned(points)) and torch.equal(fresh.cells, pruned.cells)
    with pytest.raises(RuntimeError, match="size mismatch"):
        OctreeGrid(levels=3, features=3, base=1).load_state_dict(pruned.state_dict())


def test_double_precision_and_copies_work():
    grid = filled(shell())
    double, points = copy.deepcopy(grid).double(), torch.rand(20, 3, dtype=torch.float64)
    assert double(points).dtype == torch.float64
    torch.testing.assert_close(double(points).float(), grid(points))


class Pruned(Trainer):
    """Fits a ball's distance; halfway, cells far from its surface go."""

    def setup(self):
        self.grid = OctreeGrid(levels=2, features=2, base=1)
        self.head = torch.nn.Linear(4, 1)
        self.optimizer = torch.optim.Adam([*self.grid.parameters(), *self.head.parameters()], lr=0.02)
        self.average = EMA(self.grid, 0.9)

    def step(self, batch):
        (points,) = batch
        loss = functional.mse_loss(self.head(self.grid(points))[:, 0], points.norm(dim=1) - 0.5)
        self.minimize(loss)
        if self.progress.step in (2, 5):
            distance = (self.grid.centres().norm(dim=1) - 0.5).abs()
            self.grid.prune(distance < (0.45 if self.progress.step == 2 else 0.3), self.edit_rows)
        return {"loss": loss}


def test_a_run_that_prunes_resumes_exactly(tmp_path):
    data = (torch.rand(64, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1,)

    def build(run_dir, resume):
        return Pruned(data=data, batch_size=16, max_steps=9, seed=1, run_dir=run_dir, resume=resume, device="cpu")

    check_resume(build, tmp_path, stops=[2, 3, 4, 7])
    with build(tmp_path / "again" / "v001", False) as trainer:
        trainer.train()
        assert len(trainer.grid.cells) < 64 and len(trainer.grid.table) == trainer.grid.index.rows < 152
        assert capture(trainer).tensors["grid/state/table"].shape == trainer.grid.table.shape


def test_cells_of_another_level():
    cells = torch.tensor([[5, 2, 7]])
    assert cells_at(cells, 3, 1).tolist() == [[1, 0, 1]]
    assert torch.equal(cells_at(cells, 3, 3), cells)
    finer = cells_at(cells, 3, 5)
    assert len(finer) == 64 and torch.equal(cells_at(finer, 5, 3).unique(dim=0), cells)


def test_the_grids_within_a_module_are_found():
    grid = shell()
    assert sparse_grids(torch.nn.Sequential(torch.nn.Linear(1, 1), grid)) == [grid]
    assert sparse_grids(grid) == [grid] and sparse_grids(torch.nn.Linear(1, 1)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": torch.zeros(0, 3).long()}, "there are no cells"),
        ({"cells": torch.zeros(4, 3)}, r"cells are integers \(m, 3\)"),
        ({"cells": torch.zeros(4, 2).long()}, r"cells are integers \(m, 3\)"),
        ({"cells": torch.tensor([[0, 8, 0]])}, "coordinate is 8: level 3 has 0 to 7"),
        ({"cells": torch.tensor([[0, -1, 0]])}, "coordinate is -1"),
        ({"features": 0}, "features is 0"),
        ({"features": 9}, "features is 9"),
        ({"base": 8}, "base is 8"),
        ({"cells": None, "levels": 8}, "level 8 has 16777216 cells"),
    ],
)
def test_what_cannot_be_built_is_named(options, message):
    with pytest.raises(UsageError, match=message):
        OctreeGrid(**{"cells": SHELL, "levels": 3, "features": 2, "base": 1} | options)


def test_the_index_goes_where_the_grid_goes():
    moved = shell().to("meta")
    assert moved.index.records.device.type == moved.codes.device.type == moved.table.device.type == "meta"
