"""The grid that learns where a density is: what it keeps, forgets, draws and never loses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.cameras.rays import project
from treadle.errors import UsageError
from treadle.fields.rays import Rays
from treadle.fields.structures.occupancy import OccupancyGrid


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball(points: Tensor) -> Tensor:
    """A density of 100 within a ball of radius .6."""
    return 100.0 * (points.norm(dim=1) < 0.6)


def looking(count: int = 400) -> Rays:
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=rng()), dim=1) * 3
    return Rays(origins, torch.nn.functional.normalize(0.5 * torch.randn(count, 3, generator=rng(1)) - origins, dim=1))


def test_all_is_occupied_at_first() -> None:
    grid = OccupancyGrid(8, 2)
    points = torch.tensor([[0.0, 0, 0], [1.5, 0, 0], [2.5, 0, 0], [float("nan")] * 3])
    assert grid.share == 1 and grid.extent == 2
    assert grid.occupied(points[:3]).tolist() == [True, True, False]
    assert grid.query(points).tolist()[2:] == [-1, -1]
    assert [tuple(b.shape) for b in grid.buffers()] == [(2, 8, 8, 8), (2, 8, 8, 8)]


@pytest.mark.parametrize("cascades", [1, 3])
def test_cells_that_hold_something_stay_and_all_others_go(cascades: int) -> None:
    grid = OccupancyGrid(32, cascades)
    for seed in range(4):
        grid.update(ball, rng(seed), step=0.02)
    cells = torch.nonzero(grid.mask)
    half = (2.0 ** cells[:, 0])[:, None]
    low, high = (cells[:, 1:] * (2 / 32) - 1) * half, ((cells[:, 1:] + 1) * (2 / 32) - 1) * half
    nearest = torch.maximum(torch.maximum(low, -high), torch.zeros(())).norm(dim=1)
    assert (nearest < 0.6).all() and (cells[:, 0] == 0).all()  # the ball is in the finest cascade
    inside = torch.rand(20_000, 3, generator=rng()) * 2 - 1
    assert grid.occupied(inside[inside.norm(dim=1) < 0.49]).all()
    volume = 4 / 3 * math.pi * 0.6**3 / 8**cascades
    assert volume < grid.share < 1.3 * volume


def test_a_place_belongs_to_the_finest_cascade_that_holds_it() -> None:
    grid = OccupancyGrid(8, 3)
    counted = grid.counted()
    assert counted[0].all() and counted[1].sum() == counted[2].sum() == 512 - 64
    asked: list[Tensor] = []
    grid.update(lambda points: (asked.append(points), points.norm(dim=1))[1], rng(), step=0.1)
    points = torch.cat(asked)
    assert len(points) == 512 + 2 * 448
    assert torch.equal(
        grid.query(points) // 512, torch.repeat_interleave(torch.arange(3), torch.tensor([512, 448, 448]))
    )


def test_what_a_cell_had_fades() -> None:
    grid = OccupancyGrid(4)
    grid.update(lambda p: torch.full((len(p), 1), 2.0), rng(), step=0.1)
    assert (grid.values == 2).all() and grid.mask.all()  # all are above the mean's rounding? the old mask stays
    for _ in range(3):
        grid.update(lambda p: torch.zeros(len(p)), rng(), step=0.1, decay=0.5)
    assert (grid.values == 0.25).all()
    grid.update(lambda p: torch.full((len(p),), 0.2), rng(), step=0.1, decay=0.5)
    assert torch.allclose(grid.values, torch.tensor(0.2))


@pytest.mark.parametrize(("step", "level"), [(0.1, 0.1), (0.001, 0.5)])
def test_the_threshold_is_an_optical_thickness_or_the_mean_if_that_is_less(step: float, level: float) -> None:
    grid = OccupancyGrid(16)
    grid.update(lambda p: (p[:, 0] + 1) / 2, rng(), step=step)
    assert abs(grid.values.mean() - 0.5) < 0.01
    kept = grid.values[grid.mask]
    assert abs(kept.min() - level) < 0.01 and abs(grid.values[~grid.mask].max() - level) < 0.01


def test_it_is_never_empty() -> None:
    grid = OccupancyGrid(16)
    for seed in range(3):
        grid.update(ball, rng(seed), step=0.02)
    mask = grid.mask.clone()
    for _ in range(3):
        grid.update(lambda p: torch.zeros(len(p)), rng(), step=0.02, decay=0.0)
    assert mask.any() and torch.equal(grid.mask, mask) and not grid.values.any()


def test_a_share_is_drawn_from_all_and_from_the_occupied() -> None:
    grid = OccupancyGrid(16)
    for seed in range(3):
        grid.update(ball, rng(seed), step=0.02)
    occupied = int(grid.mask.sum())
    before, asked = grid.mask.clone(), []
    grid.update(lambda p: (asked.append(p), ball(p))[1], rng(), step=0.02, share=0.25)
    (points,) = asked
    cells = ((points + 1) * 8).floor().long()
    hit = torch.zeros_like(before[0])
    hit[cells[:, 0], cells[:, 1], cells[:, 2]] = True
    assert len(points) == hit.sum()  # each once
    assert occupied < 1024 and hit[before[0]].all()  # all of the occupied, for they are fewer
    drawn = float(hit[~before[0]].sum() / (~before).sum())
    assert 0.18 < drawn < 0.26  # a quarter, drawn with repetition: 1 - exp(-1/4) = .22
    grid.update(ball, rng(), step=0.02, share=0.01)
    assert grid.mask.sum() > 0.9 * occupied  # who is not asked does not fade


def test_what_is_drawn_is_the_generators() -> None:
    grids = [OccupancyGrid(8, 2) for _ in range(3)]
    state = torch.get_rng_state()
    for grid, seed in zip(grids, (0, 0, 1), strict=True):
        generator = rng(seed)
        for share in (1.0, 0.25):
            grid.update(lambda p: p.norm(dim=1), generator, step=0.05, share=share)
    assert torch.equal(grids[0].values, grids[1].values) and not torch.equal(grids[0].values, grids[2].values)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_saved_with_the_model() -> None:
    grid, other = OccupancyGrid(8), OccupancyGrid(8)
    grid.update(ball, rng(), step=0.02)
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other.mask, grid.mask) and torch.equal(other.values, grid.values) and not grid.mask.all()


def test_the_march_takes_an_eighth_of_the_boxs_samples_and_misses_none() -> None:
    """A thin shell: pruned, at equal step; issue: at least 8 times fewer samples a ray."""

    def shell(points: Tensor) -> Tensor:
        return 100.0 * ((points.norm(dim=1) - 0.6).abs() < 0.02)

    rays, step = looking(), 2 * math.sqrt(3) / 256
    box, grid = OccupancyGrid(64), OccupancyGrid(64)
    for seed in range(8):
        grid.update(shell, rng(seed), step=step)
    all_, few = box.march(rays, step=step), grid.march(rays, step=step)
    assert len(all_.rays) >= 8 * len(few.rays)

    def there(samples: object) -> Tensor:
        points = rays.origins[samples.rays] + samples.distances[:, None] * rays.directions[samples.rays]  # type: ignore[attr-defined]
        return shell(points) > 0

    seen, kept = there(all_), there(few)
    assert 0.97 * seen.sum() <= kept.sum() <= seen.sum()  # eight draws find nearly all of the cells' corners


def test_some_samples_per_cell() -> None:
    rays = looking(50)
    grid = OccupancyGrid(8)
    grid.mask.copy_(torch.rand(1, 8, 8, 8, generator=rng()) < 0.3)
    cells = grid.raytrace(rays)
    for jitter in (None, torch.rand(50, generator=rng())):
        found = grid.march(rays, step=9.0, per_cell=3, jitter=jitter)
        assert torch.equal(found.starts, 3 * cells.starts) and torch.equal(found.rays, cells.rays.repeat_interleave(3))
        shift = 0.5 if jitter is None else jitter[cells.rays]
        for i in range(3):
            width = (cells.exits - cells.entries) / 3
            torch.testing.assert_close(found.distances[i::3], cells.entries + (i + shift) * width)
            torch.testing.assert_close(found.deltas[i::3], width)
    few = grid.march(rays, step=9.0, per_cell=3, most=4)
    assert torch.equal(few.starts.diff(), (3 * cells.starts.diff()).clamp(max=4))
    assert torch.equal(few.rays, torch.repeat_interleave(torch.arange(50), few.starts.diff()))
    with pytest.raises(UsageError, match="per_cell is -1"):
        grid.march(rays, step=1.0, per_cell=-1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"share": 0.0}, "share is 0"),
        ({"share": 1.5}, "share is 1.5"),
        ({"decay": 2.0}, "decay 2"),
        ({"threshold": 0.0}, "threshold 0"),
        ({"step": 0.0}, "step 0"),
        ({"density": lambda p: p.new_full((len(p),), math.nan)}, "512 of them not finite"),
        ({"density": lambda p: p}, "1536 values for 512 points"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], complaint: str) -> None:
    grid = OccupancyGrid(8)
    with pytest.raises(UsageError, match=complaint):
        grid.update(**{"density": ball, "generator": rng(), "step": 0.1, **options})  # type: ignore[arg-type]
    assert grid.mask.all() and not grid.values.any()
    with pytest.raises(UsageError, match="resolution is 0"):
        OccupancyGrid(0)


@pytest.mark.parametrize("cascades", [1, 2])
def test_cells_that_no_camera_sees_are_left_out_for_good(cascades: int) -> None:
    pose = np.eye(4)
    pose[2, 3] = 1.5  # looks at the middle from z = -1.5
    cameras = [Camera(20, 10, 40.0, 40.0, 12.0, 5.0, pose), Camera(6, 6, 40.0, 40.0, 3.0, 3.0, pose)]
    grid = OccupancyGrid(48, cascades)
    grid.keep_seen(cameras)
    places = (2 * torch.rand(200_000, 3, generator=rng(), dtype=torch.float64) - 1) * grid.extent
    pixels, depths = project(cameras[0], places.numpy())
    seen = torch.from_numpy((depths > 0) & (pixels >= 0).all(1) & (pixels < cameras[0].size).all(1))
    assert grid.occupied(places[seen]).all() and seen.any()
    kept = float(grid.occupied(places).double().mean())
    assert float(seen.double().mean()) < kept < 0.4
    # A ball reaches at most so many pixels out of the picture.
    margin = (40 * 2.2 * 3**0.5 / 48 * grid.extent / depths)[:, None]
    aside = ((pixels < -margin) | (pixels > np.array(cameras[0].size) + margin)).any(1) & (depths > 0.3 * grid.extent)
    assert not grid.occupied(places[torch.from_numpy(aside)]).any()
    mask = grid.mask.clone()
    asked: list[Tensor] = []
    for seed in range(3):
        grid.update(lambda p: (asked.append(p), 1 + p.abs().sum(1))[1], rng(seed), step=0.01, share=1.0 - 0.3 * seed)
    assert grid.occupied(torch.cat(asked)).any() and not (grid.mask & ~mask).any()
    assert torch.equal(grid.values < 0, ~mask & grid.counted())
    cells = torch.cat(asked)
    copy = OccupancyGrid(48, cascades)
    copy.mask.copy_(mask)
    assert copy.occupied(cells).all()  # the others are not even asked
    behind = np.eye(4)
    behind[2, 3] = -9  # stands at z = 9 and looks away
    away = replace(cameras[0], world_to_camera=behind)
    with pytest.raises(UsageError, match="none of 1 cameras sees anything"):
        OccupancyGrid(48, cascades).keep_seen([away])
