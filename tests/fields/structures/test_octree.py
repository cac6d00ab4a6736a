"""Sparse cells: made from meshes, points and captures, asked, walked, pruned, saved, and resumed with a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from treadle import Trainer
from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture, Photograph
from treadle.errors import UsageError
from treadle.fields.rays import Rays
from treadle.fields.structures.octree import Octree, surface_points
from treadle.testing import check_resume


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sphere_points(count: int = 20_000, radius: float = 0.6) -> Tensor:
    return radius * torch.nn.functional.normalize(torch.randn(count, 3, generator=rng(), dtype=torch.float64), dim=1)


def tetrahedron() -> tuple[np.ndarray, np.ndarray]:
    vertices = np.array([[0.71, 0.63, 0.78], [0.66, -0.7, -0.59], [-0.8, 0.69, -0.71], [-0.57, -0.74, 0.64]])
    return vertices, np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])


def test_it_knows_its_cells_by_number() -> None:
    cells = torch.tensor([[3, 0, 1], [0, 0, 0], [3, 0, 1], [2, 3, 3]])
    tree = Octree(cells, 2)
    assert len(tree) == 3 and tree.level == 2 and tree.share == 3 / 64 and "level=2, cells=3" in repr(tree)
    assert tree.cells.tolist() == [[0, 0, 0], [3, 0, 1], [2, 3, 3]]  # in the order of Morton codes
    centres = (tree.cells + 0.5) / 2 - 1
    assert tree.query(centres).tolist() == [0, 1, 2]
    outside = torch.tensor([[0.1, 0.1, 0.1], [-1.1, -0.9, -0.9], [5.0, 0, 0], [math.nan] * 3])
    assert tree.query(outside).tolist() == [-1] * 4 and not tree.occupied(outside).any()
    assert tree.query(torch.tensor([[-1.0, -1, -1], [1.0, 1, 1]])).tolist() == [0, -1]


def test_points_lie_in_its_cells_and_each_cell_holds_one() -> None:
    points = sphere_points()
    tree = Octree.from_points(points, 5)
    numbers = tree.query(points)
    assert (numbers >= 0).all() and len(numbers.unique()) == len(tree)
    assert len(Octree.from_points(torch.cat((points, points + 7)), 5)) == len(tree)  # what is outside counts not
    assert len(Octree.from_points(points.numpy().astype(np.float32), 5)) == pytest.approx(len(tree), rel=0.01)


def test_dilation_takes_the_cells_around() -> None:
    middle = Octree(torch.tensor([[4, 4, 4], [0, 0, 7]]), 3)
    wide = middle.dilated()
    assert len(wide) == 27 + 8
    assert len(Octree(torch.tensor([[4, 4, 4]]), 3).dilated(2)) == 125 and len(middle.dilated(8)) == 512
    points = sphere_points(2000)
    near = Octree.from_points(points, 4, dilation=1)
    assert near.occupied((points + 2 / 16 * (2 * torch.rand(2000, 3, generator=rng()) - 1)).clamp(-1, 1)).all()


def test_a_mesh_lies_in_its_cells() -> None:
    vertices, faces = tetrahedron()
    tree = Octree.from_mesh(vertices, faces, 4)
    weights = torch.distributions.Dirichlet(torch.ones(3)).sample((50_000,)).numpy()
    chosen = vertices[faces[np.random.default_rng(0).integers(4, size=50_000)]]
    numbers = tree.query(torch.from_numpy((weights[:, :, None] * chosen).sum(1)))
    assert (numbers >= 0).all() and len(numbers.unique()) > 0.9 * len(tree)
    assert len(Octree.from_mesh(vertices, faces, 4, dilation=1)) == len(tree.dilated())


def test_a_ray_finds_the_cells_that_the_points_along_it_are_in() -> None:
    tree = Octree.from_points(sphere_points(), 5)
    origins = 3 * torch.nn.functional.normalize(torch.randn(100, 3, generator=rng(1), dtype=torch.float64), dim=1)
    rays = Rays(origins, torch.nn.functional.normalize(-origins + 0.5 * torch.rand(100, 3, generator=rng(2)), dim=1))
    found = tree.raytrace(rays)
    middle = (found.entries + found.exits) / 2
    assert torch.equal(tree.query(origins[found.rays] + middle[:, None] * rays.directions[found.rays]), found.cells)
    samples = tree.march(rays, step=0.01)
    assert (
        tree.occupied(origins[samples.rays] + samples.distances[:, None] * rays.directions[samples.rays]).float().mean()
        > 0.999
    )
    # All that is in a cell, of all places along the rays.
    t = torch.arange(0.005, 4.0, 0.01, dtype=torch.float64)
    places = origins[:, None] + t[:, None] * rays.directions[:, None]
    length = float(tree.occupied(places.reshape(-1, 3)).sum() * 0.01)
    assert float((found.exits - found.entries).sum()) == pytest.approx(length, rel=0.02)
    assert len(samples.rays) * 0.01 == pytest.approx(length, rel=0.02)


@dataclass
class Views:
    """Depth pictures of a wall at z = .5, seen from the origin, or none."""

    depth: bool
    cameras: tuple[Camera, ...] = (Camera(8, 6, 8.0, 8.0, 4.0, 3.0, np.eye(4)),) * 2

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: int) -> Photograph:
        depth = np.full((6, 8), 0.5, np.float32)
        depth[0], depth[1, 0] = 0, np.inf
        return Photograph(self.cameras[index], np.zeros((6, 8, 3), np.uint8), depth=depth if self.depth else None)

    def fingerprint(self) -> str:
        return ""


def test_a_capture_gives_its_points_and_its_depth() -> None:
    bare = Capture(Views(False), Views(False), Views(False))
    with pytest.raises(UsageError, match="neither points nor depth"):
        Octree.from_capture(bare, 4)
    known = replace(bare, points=np.array([[2.0, 0, 0], [0, 0, 4.0]]))
    shrink = np.diag([0.2, 0.2, 0.2, 1.0])
    tree = Octree.from_capture(known, 4, to_box=shrink, dilation=0)
    assert tree.cells.tolist() == [[11, 8, 8], [8, 8, 14]]
    seen = surface_points(replace(bare, train=Views(True)))
    assert len(seen) == 2 * (8 * 5 - 1) and (seen[:, 2] == 0.5).all()
    np.testing.assert_allclose(seen[-1], [3.5 / 8 * 0.5, 2.5 / 8 * 0.5, 0.5])  # the last pixel's centre
    np.testing.assert_allclose(surface_points(replace(bare, train=Views(True)), 2)[0], [-3.5 / 16, -0.5 / 16, 0.5])
    wall = Octree.from_capture(replace(known, train=Views(True)), 4, dilation=0)
    assert set(wall.cells[:, 2].tolist()) == {12}


def test_pruning_takes_what_stays_low_and_never_all() -> None:
    tree = Octree.from_mesh(*tetrahedron(), 4, dilation=1)
    before = tree.cells

    def half(points: Tensor) -> Tensor:
        return 50.0 * (points[:, 0] > 0)

    assert tree.prune(half, rng(), step=0.01).all()  # a cell is looked at twice
    kept = tree.prune(half, rng(1), step=0.01)
    assert torch.equal(kept, before[:, 0] >= 8) and torch.equal(tree.cells, before[kept])
    assert len(tree.values) == len(tree) == kept.sum() and (tree.values == 50).all()
    centres = (tree.cells + 0.5) / 8 - 1
    assert torch.equal(tree.query(centres), torch.arange(len(tree)))  # its larger cells are made anew
    count = len(tree)
    for _ in range(200):
        assert tree.prune(lambda p: torch.zeros(len(p), 1), rng(), step=0.01).all() or len(tree)
    assert 0 < len(tree) <= count


def test_a_tree_takes_the_state_of_another_size_and_level() -> None:
    tree = Octree.from_points(sphere_points(), 4)
    tree.prune(lambda p: p[:, 0] + 1, rng(), step=0.01)
    other = Octree(torch.zeros(1, 3, dtype=torch.int64), 7)
    model = torch.nn.Sequential(other)
    model.load_state_dict(torch.nn.Sequential(tree).state_dict())
    assert other.level == 4 and all(torch.equal(a, b) for a, b in zip(tree.buffers(), other.buffers(), strict=True))
    assert torch.equal(other.query(sphere_points()), tree.query(sphere_points()))


class Pruning(Trainer):
    """Prunes a tree at each step by what it learns."""

    def setup(self) -> None:
        self.tree = Octree.from_points(sphere_points(3000), 4)
        self.model = torch.nn.Linear(3, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)

    def step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        loss = (self.model(x) - y).square().mean() + 1e-3 * len(self.tree)
        self.minimize(loss)
        self.tree.prune(lambda p: self.model(p).abs(), rng(self.progress.step), step=0.02)
        return {"loss": loss}


def test_a_run_that_prunes_resumes_exactly(tmp_path: Path) -> None:
    x = torch.rand(64, 3, generator=rng()) * 2 - 1

    def build(**options: object) -> Trainer:
        return Pruning(data=(x, x[:, :1]), batch_size=16, max_epochs=2, seed=0, **options)

    check_resume(build, tmp_path, stops=(1, 5))
    trainer = build()
    trainer.train()
    assert len(trainer.tree) < len(Octree.from_points(sphere_points(3000), 4))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Octree(torch.zeros(0, 3, dtype=torch.int64), 3), "at least one"),
        (lambda: Octree(torch.zeros(2, 3), 3), "int64"),
        (lambda: Octree(torch.tensor([[0, 0, 8]]), 3), "expected 0 to 7"),
        (lambda: Octree(torch.tensor([[0, 0, 0]]), 17), "level is 17"),
        (lambda: Octree.from_points(torch.full((3, 3), math.nan), 3), "finite points"),
        (lambda: Octree.from_points(torch.full((3, 3), 2.0), 3), "none of 3 points"),
        (lambda: Octree.from_points(torch.zeros(0, 3), 3), "none of 0 points"),
        (lambda: Octree.from_mesh(tetrahedron()[0] + 9, tetrahedron()[1], 3), "none of 4 faces"),
        (lambda: Octree.from_mesh(tetrahedron()[0], np.zeros((0, 3), int), 3), "none of 0 faces"),
        (lambda: Octree(torch.tensor([[0, 0, 0]]), 3).prune(lambda p: p, rng(), step=0.1), "3 values for 1 points"),
        (lambda: Octree(torch.tensor([[0, 0, 0]]), 3).prune(lambda p: p[:, 0] / 0, rng(), step=0.1), "not finite"),
        (lambda: Octree(torch.tensor([[0, 0, 0]]), 3).prune(lambda p: p[:, 0], rng(), step=0.0), "step 0"),
    ],
)
def test_what_makes_no_tree_is_refused(make: object, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        make()  # type: ignore[operator]
