"""A step of sphere tracing against its reference, and what it does with a ray."""

from __future__ import annotations

import torch
from torch import Tensor

from treadle.kernels.marching import Intervals
from treadle.kernels.spheretracing import March, advance
from treadle.kernels.spheretracing_reference import advance_reference

F64 = torch.float64


def some_stretches(rays: int) -> Intervals:
    """Up to four stretches along each ray."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 5, (rays,), generator=generator)
    starts = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)))
    lengths = 0.5 * torch.rand(int(starts[-1]), 2, generator=generator, dtype=F64) + 0.01
    ends = torch.cat([part.flatten().cumsum(0).reshape(-1, 2) for part in lengths.split(counts.tolist())])
    which = torch.repeat_interleave(torch.arange(rays), counts)
    return Intervals(starts, which, which, ends[:, 0].contiguous(), ends[:, 1].contiguous())


def followed(rays: int, reference: bool) -> list[Tensor]:
    """Rays through values that are drawn anew at each step; where they are after each."""
    stretches = some_stretches(rays)
    march, alive = March.begin(stretches)
    generator, seen = torch.Generator().manual_seed(1), []
    for _ in range(12):
        sdf = 0.3 * torch.randn(rays, generator=generator, dtype=F64)
        sdf[::7] *= 1e-3
        if reference:
            ends = stretches.starts, stretches.entries, stretches.exits
            alive = advance_reference(*march, alive, sdf[: len(alive)], *ends, 0.8, 3e-4)
        else:
            alive = advance(march, alive, sdf[: len(alive)], stretches)
        seen += [alive, march.distances.clone(), march.hits.clone()]
    return seen


def test_rays_go_where_the_reference_goes() -> None:
    found, wanted = followed(500, False), followed(500, True)
    assert found[0].any() and found[-1].any() and len(found[-3]) < len(found[0])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_threads_change_nothing() -> None:
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(followed(20_000, False))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def one_ray(*ends: tuple[float, float]) -> Intervals:
    count = len(ends)
    entries, exits = torch.tensor(ends, dtype=F64).T.contiguous()
    zeros = torch.zeros(count, dtype=torch.int64)
    return Intervals(torch.tensor([0, count]), zeros, zeros, entries, exits)


def test_a_ray_jumps_from_stretch_to_stretch_until_it_hits_or_is_lost() -> None:
    stretches = one_ray((1.0, 1.5), (2.0, 2.5), (4.0, 5.0))
    march, alive = March.begin(stretches)
    assert march.distances.item() == 1.0
    for sdf, there in ((0.25, 1.2), (0.5, 2.0), (0.25, 2.2), (1.0, 4.0), (0.5, 4.4), (-0.25, 4.2)):
        alive = advance(march, alive, torch.tensor([sdf]).double(), stretches)
        assert len(alive) == 1 and abs(march.distances.item() - there) < 1e-12
    on = advance(march, alive, torch.tensor([1e-4]).double(), stretches)
    assert len(on) == 0 and march.hits.item()
    march, alive = March.begin(stretches)
    assert len(advance(march, alive, torch.tensor([9.0]).double(), stretches)) == 0 and not march.hits.item()


def test_a_ray_that_comes_in_below_the_surface_hits_where_it_comes_in() -> None:
    stretches = one_ray((1.0, 2.0))
    march, alive = March.begin(stretches)
    assert len(advance(march, alive, torch.tensor([-0.3]).double(), stretches)) == 0
    assert march.hits.item() and march.distances.item() == 1.0


def test_two_steps_forth_and_back_have_arrived() -> None:
    stretches = one_ray((1.0, 3.0))
    march, alive = March.begin(stretches)
    alive = advance(march, alive, torch.tensor([0.1]).double(), stretches)
    assert len(alive) == 1
    assert len(advance(march, alive, torch.tensor([-0.098]).double(), stretches)) == 0 and march.hits.item()


def test_a_jump_is_no_step_and_a_hit_stays_in_its_stretch() -> None:
    stretches = one_ray((1.0, 1.001), (2.0, 2.0001))
    march, alive = March.begin(stretches)
    alive = advance(march, alive, torch.tensor([0.003]).double(), stretches)
    assert len(alive) == 1 and march.distances.item() == 2.0
    on = advance(march, alive, torch.tensor([0.0005]).double(), stretches)  # with the step before the jump: arrived
    assert len(on) == 0 and not march.hits.item()
    march, alive = March.begin(one_ray((2.0, 2.0001)))
    advance(march, alive, torch.tensor([2e-4]).double(), one_ray((2.0, 2.0001)))
    assert march.hits.item() and march.distances.item() == 2.0001
