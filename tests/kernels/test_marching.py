"""Rays through cells, against looking at every step and every plane in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels import voxels
from treadle.kernels.marching import Intervals, Samples, Tree, dense, march, raytrace
from treadle.kernels.marching_reference import cell_of, march_reference, raytrace_reference


def some_rays(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """From within and without, some along an axis, some in a plane of cells' sides, some that miss."""
    generator = torch.Generator().manual_seed(seed)
    origins = 2 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    directions = 0.8 * torch.randn(count, 3, generator=generator, dtype=torch.float64) - origins / 2
    directions[: count // 8, 0] = 0
    directions[: count // 16, 1] = 0
    directions = torch.nn.functional.normalize(directions, dim=1)
    return origins.to(dtype), directions.to(dtype)


def some_cells(cascades: int, side: int, share: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(cascades, side, side, side, generator=generator) < share


@pytest.mark.parametrize(
    ("cascades", "side", "cone", "share"),
    [(1, 16, 0.0, 0.2), (1, 16, 0.01, 0.05), (1, 21, 0.03, 1.0), (3, 16, 0.0, 0.3), (3, 8, 0.02, 0.5), (2, 1, 0.0, 1)],
)
def test_the_march_is_what_looking_at_every_step_finds(cascades: int, side: int, cone: float, share: float) -> None:
    origins, directions = some_rays(300)
    occupied = some_cells(cascades, side, share)
    jitter = torch.rand(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    near, far = torch.full((300,), 0.3, dtype=torch.float64), torch.linspace(0.2, 9, 300, dtype=torch.float64)
    for most in (1 << 20, 5):
        found = march(origins, directions, occupied, step=0.03, cone=cone, jitter=jitter, near=0.3, far=far, most=most)
        wanted = march_reference(origins, directions, occupied, 0.03, cone, jitter, near, far, most)
        assert torch.equal(found.starts, wanted[0]) and torch.equal(found.rays, wanted[1])
        torch.testing.assert_close(found.distances, wanted[2], atol=1e-12, rtol=0)
        torch.testing.assert_close(found.deltas, wanted[3], atol=1e-12, rtol=0)
        assert len(found.rays) > 100 and (found.starts.diff().max() == 5) == (most == 5)


@pytest.mark.parametrize(("cascades", "side"), [(1, 16), (1, 13), (3, 8)])
@pytest.mark.parametrize("merged", [False, True])
def test_the_stretches_are_those_between_planes(cascades: int, side: int, merged: bool) -> None:
    origins, directions = some_rays(300)
    occupied = some_cells(cascades, side, 0.4)
    near, far = torch.full((300,), 0.3, dtype=torch.float64), torch.full((300,), 8.0, dtype=torch.float64)
    found = raytrace(origins, directions, occupied, near=near, far=8.0, merged=merged)
    wanted = raytrace_reference(origins, directions, occupied, near, far, merged)
    for a, b in zip(found[:3], wanted[:3], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(found.entries, wanted[3], atol=1e-12, rtol=0)
    torch.testing.assert_close(found.exits, wanted[4], atol=1e-12, rtol=0)
    assert len(found.cells) > 300


def test_steps_are_all_looked_at_where_all_is_occupied() -> None:
    """A closed form: along x, in at 1 from the origin, out at 3; steps are counted from there."""
    origins, directions = torch.tensor([[-2.0, 0.1, 0.1]]), torch.tensor([[1.0, 0.0, 0.0]])
    full = torch.ones(1, 8, 8, 8, dtype=torch.bool)
    found = march(origins, directions, full, step=0.1, jitter=torch.tensor([0.25]))
    torch.testing.assert_close(found.distances, 1 + 0.1 * (torch.arange(20) + 0.25))
    assert (found.deltas == 0.1).all()
    middle = march(origins, directions, full, step=0.1)
    torch.testing.assert_close(middle.distances, 1 + 0.1 * (torch.arange(20) + 0.5))


def test_steps_grow_with_the_distance_up_to_the_cells() -> None:
    origins, directions = torch.tensor([[0.0, 0.1, 0.1]]).double(), torch.tensor([[1.0, 0.0, 0.0]]).double()
    full = torch.ones(4, 16, 16, 16, dtype=torch.bool)
    found = march(origins, directions, full, step=0.02, cone=0.2, near=0.02)
    t, delta = found.distances, found.deltas
    cascade = torch.searchsorted(torch.tensor([1.0, 2, 4, 8]).double(), t)
    torch.testing.assert_close(delta, (0.2 * t).clamp(min=0.02).minimum(2.0**cascade / 8))
    # Between two samples lies half of one's step and half of the other's, to second order of the growth.
    torch.testing.assert_close(t.diff(), (delta[1:] + delta[:-1]) / 2, rtol=0.2, atol=0)
    assert delta.min() == 0.02 and delta.max() == 1 and abs(delta.sum() - 7.98) < 1


def check(origins: Tensor, directions: Tensor, occupied: Tensor, found: Samples, within: Intervals) -> None:
    """What holds of every march."""
    cascades, side = occupied.shape[:2]
    assert found.starts[0] == 0 and (found.starts.diff() >= 0).all() and found.starts[-1] == len(found.rays)
    assert torch.equal(found.rays, torch.repeat_interleave(torch.arange(len(origins)), found.starts.diff()))
    same = found.rays[1:] == found.rays[:-1]
    assert (found.deltas > 0).all() and (found.distances.diff()[same] > 0).all() and (found.distances >= 0).all()
    points = origins[found.rays] + found.distances[:, None] * directions[found.rays]
    # In an occupied cell, or so near to its side that rounding decides.
    near = [points + 1e-9 * torch.tensor([x, y, z]) for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)]
    cells = torch.stack([cell_of(p, cascades, side) for p in near])
    assert ((cells >= 0) & occupied.flatten()[cells.clamp(min=0)]).any(0).all()
    assert (within.exits > within.entries).all()
    same = within.rays[1:] == within.rays[:-1]
    assert (within.entries[1:][same] >= within.exits[:-1][same]).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 20), st.floats(0, 1), st.floats(0.01, 0.5), st.sampled_from([0.0, 0.004, 0.05]),
    st.integers(0, 10**6),
)  # fmt: skip
def test_whatever_the_cells_and_steps(
    cascades: int, side: int, share: float, step: float, cone: float, seed: int
) -> None:
    origins, directions = some_rays(24, seed)
    jitter = torch.rand(24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    occupied = some_cells(cascades, side, share, seed)
    found = march(origins, directions, occupied, step=step, cone=cone, jitter=jitter)
    within = raytrace(origins, directions, occupied, merged=True)
    check(origins, directions, occupied, found, within)
    # Nothing is missed, and nothing is there twice: each stretch has as many samples as it is steps long, but for one.
    if cone == 0:
        steps = (within.exits - within.entries) / step
        index = torch.searchsorted(within.entries + 100 * within.rays, found.distances + 100 * found.rays, right=True)
        counts = torch.bincount(index - 1, minlength=len(steps))
        assert ((counts - steps).abs() <= 1 + 1e-6).all()


def test_a_tree_is_walked_as_the_grid_of_its_cells() -> None:
    origins, directions = some_rays(300)
    occupied = some_cells(1, 16, 0.1)
    codes = torch.unique(voxels.encode(torch.nonzero(occupied[0]), 4))
    tree = voxels.tree(codes, 4)
    assert torch.equal(dense(tree), occupied)
    marched = [march(origins, directions, cells, step=0.02) for cells in (tree, occupied)]
    for a, b in zip(*marched, strict=True):
        assert torch.equal(a, b)
    sparse, full = raytrace(origins, directions, tree), raytrace(origins, directions, occupied)
    x, y, z = voxels.decode(codes, 4)[sparse.cells].unbind(1)
    assert torch.equal((x * 16 + y) * 16 + z, full.cells)
    for a, b in zip(sparse[3:], full[3:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    alone = Tree(torch.zeros(0, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), 0)
    assert torch.equal(raytrace(origins, directions, alone).cells.unique(), torch.tensor([0]))


@pytest.mark.parametrize("tiny", [1e-12, 1e-29, 1e-31, 1e-310, -1e-310])
def test_directions_next_to_an_axis_are_followed_as_along_it(tiny: float) -> None:
    origins = torch.tensor([[-2.0, 0.3, 0.3], [-2.0, -1.0, 1.0]], dtype=torch.float64)
    along, aside = torch.tensor([[1.0, 0, 0]] * 2).double(), torch.tensor([[1.0, tiny, tiny]] * 2).double()
    occupied = some_cells(2, 9, 0.5)
    exact, near = (raytrace(origins, directions, occupied) for directions in (along, aside))
    assert near.starts[1] == exact.starts[1] > 1 and torch.equal(
        near.cells[: near.starts[1]], exact.cells[: exact.starts[1]]
    )
    torch.testing.assert_close(near.exits[: near.starts[1]], exact.exits[: exact.starts[1]], atol=1e-9, rtol=0)


def test_threads_change_nothing() -> None:
    origins, directions = some_rays(2000, dtype=torch.float32)
    occupied = some_cells(2, 16, 0.2)
    jitter = torch.rand(2000, generator=torch.Generator().manual_seed(1))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found = march(origins, directions, occupied, step=0.02, cone=0.01, jitter=jitter)
            results.append([*found, *raytrace(origins, directions, occupied)])
    finally:
        torch.set_num_threads(before)
    assert results[0][2].dtype == torch.float32
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nothing_to_see_is_no_sample() -> None:
    origins, directions = some_rays(50)
    empty, full = torch.zeros(2, 9, 9, 9, dtype=torch.bool), torch.ones(1, 9, 9, 9, dtype=torch.bool)
    for o, d, cells, options in (
        (origins, directions, empty, {}),
        (origins[:0], directions[:0], full, {}),
        (origins, directions, full, {"near": 3.0, "far": 2.0}),
        (origins + 10, directions.abs(), full, {}),  # away from the box
        (origins * 0, directions * 0, full, {}),  # no direction at all
        (torch.full_like(origins, 1e30), -directions.abs() * 1e-30, full, {}),
    ):
        for found in (march(o, d, cells, step=0.1, **options), raytrace(o, d, cells, **options)):
            assert found.starts.tolist() == [0] * (len(o) + 1) and all(len(column) == 0 for column in found[1:])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"step": 0.0}, "step is 0"),
        ({"step": math.nan}, "step is nan"),
        ({"cone": -1.0}, "cone -1"),
        ({"most": 0}, "most 0"),
        ({"origins": torch.full((4, 3), math.nan)}, "4 of 4 have coordinates that are not finite"),
        ({"directions": torch.full((4, 3), math.inf)}, "4 of 4"),
        ({"directions": torch.zeros(3, 3)}, r"origins and directions \(r, 3\)"),
        ({"origins": torch.zeros(4, 3, dtype=torch.int64)}, "float32 or float64"),
        ({"occupied": torch.ones(8, 8, 8, dtype=torch.bool)}, r"\(cascades, R, R, R\)"),
        ({"occupied": torch.ones(1, 8, 8, 7, dtype=torch.bool)}, r"\(cascades, R, R, R\)"),
        ({"occupied": torch.ones(1, 0, 0, 0, dtype=torch.bool)}, r"\(cascades, R, R, R\)"),
        ({"occupied": torch.ones(1, 8, 8, 8)}, "float32"),
        ({"jitter": torch.zeros(3)}, r"jitter \(4,\)"),
        ({"near": torch.zeros(3)}, "near as a number"),
        ({"near": -1.0}, "near has to be at least 0"),
        ({"far": math.nan}, "far has to be at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object], complaint: str) -> None:
    given_: dict[str, object] = {"origins": torch.zeros(4, 3), "directions": torch.ones(4, 3), "step": 0.1,
                                 "occupied": torch.ones(1, 8, 8, 8, dtype=torch.bool)}  # fmt: skip
    march(**given_)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=complaint):
        march(**{**given_, **change})  # type: ignore[arg-type]
