from __future__ import annotations

import pytest
import torch

from treadle import Trainer
from treadle.engine.rows import RowEdit
from treadle.errors import UsageError
from treadle.fields.grids.codebook import CodebookGrid
from treadle.testing import check_resume

SHELL = torch.tensor([c for c in torch.cartesian_prod(*[torch.arange(8)] * 3).tolist() if any(k in (0, 7) for k in c)])


def shell(**options):
    torch.manual_seed(0)
    return CodebookGrid(SHELL, **{"levels": 3, "features": 2, "base": 1, "bits": 2} | options)


def test_it_stores_logits_for_every_corner_and_a_dictionary_for_every_level():
    grid = shell(bits=3)
    assert grid.logits.shape == (grid.index.rows, 8) and grid.dictionary.shape == (3, 8, 2)
    assert {name for name, _ in grid.named_parameters()} == {"logits", "dictionary"} and "bits=3" in repr(grid)


def test_levels_finer_than_lod_are_zero():
    grid, points = shell(), torch.rand(30, 3) * 2 - 1
    found = grid(points, 1)
    assert torch.equal(found[:, :4], grid(points)[:, :4]) and (found[:, 4:] == 0).all()


def test_training_moves_the_choices_and_lowers_the_error():
    torch.manual_seed(0)
    grid = CodebookGrid(levels=2, features=2, base=2, bits=3)
    head = torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam([*grid.parameters(), *head.parameters()], lr=0.02)
    points = torch.rand(4000, 3) * 2 - 1
    target, before = points.norm(dim=1) - 0.5, grid.logits.argmax(1)
    errors = []
    for _ in range(120):
        optimizer.zero_grad()
        error = head(grid(points))[:, 0] - target
        error.square().mean().backward()
        optimizer.step()
        errors.append(error.square().mean().sqrt().item())
    assert (grid.logits.argmax(1) != before).float().mean() > 0.2
    assert errors[-1] < 0.08 < 0.27 < target.std()


def test_pruning_takes_logits_away_and_leaves_the_dictionary():
    grid, points = shell(), torch.rand(2000, 3) * 2 - 1
    before, dictionary = grid(points), grid.dictionary
    gone = grid.prune(grid.centres()[:, 0] > 0, RowEdit)
    assert gone > 0 and len(grid.logits) == grid.index.rows and grid.dictionary is dictionary
    right = points[:, 0] > 0
    assert torch.equal(grid(points)[right], before[right])


def test_in_evaluation_what_is_kept_follows_every_change():
    grid, points = shell().eval(), torch.rand(50, 3) * 2 - 1

    @torch.no_grad()
    def right():
        return torch.equal(grid(points), grid.baked()(points))

    first = grid(points)
    assert right() and right()
    with torch.no_grad():
        grid.logits.neg_()
        assert right() and not torch.equal(grid(points), first)
        grid.dictionary.mul_(2)
        assert right()
    grid.load_state_dict(shell(bits=2).state_dict())
    assert right()
    other = torch.randn_like(grid.logits)
    grid.logits.data, other.data = other.data, grid.logits.data  # as averages take the place of weights
    assert right()
    grid.prune(grid.centres()[:, 0] > 0, RowEdit)
    assert right()
    grid.train()
    assert right()


class Pruned(Trainer):
    """Fits a ball's distance; halfway, cells far from its surface go."""

    def setup(self):
        self.grid = CodebookGrid(levels=2, features=2, base=1, bits=2)
        self.head = torch.nn.Linear(4, 1)
        self.optimizer = torch.optim.Adam([*self.grid.parameters(), *self.head.parameters()], lr=0.02)

    def step(self, batch):
        (points,) = batch
        loss = (self.head(self.grid(points))[:, 0] - points.norm(dim=1) + 0.5).square().mean()
        self.minimize(loss)
        if self.progress.step == 2:
            self.grid.prune((self.grid.centres().norm(dim=1) - 0.5).abs() < 0.3, self.edit_rows)
        return {"loss": loss}


def test_a_run_that_prunes_resumes_exactly(tmp_path):
    data = (torch.rand(64, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1,)

    def build(run_dir, resume):
        return Pruned(data=data, batch_size=16, max_steps=6, seed=1, run_dir=run_dir, resume=resume, device="cpu")

    check_resume(build, tmp_path, stops=[2, 4])


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(UsageError, match=f"bits is {bits}"):
        CodebookGrid(SHELL, 3, 2, 1, bits)
