"""What the warm-up compiles is what tracers and structures use."""

from __future__ import annotations

import torch

from treadle.fields.rays import Rays
from treadle.fields.structures.octree import Octree
from treadle.kernels import fields_warmup, marching_loops, spheretracing_loops, volume_loops, voxels_loops
from treadle.kernels.fields_warmup import STAGES, prepare


def test_it_says_what_comes_next() -> None:
    told: list[tuple[int, int, str]] = []
    prepare(lambda *step: told.append(step))
    assert told == [*((i, len(STAGES), stage) for i, stage in enumerate(STAGES)), (len(STAGES), len(STAGES), "")]
    told.clear()
    prepare(lambda *step: told.append(step), stages=STAGES[2:3])
    assert told == [(0, 1, "volume rendering"), (1, 1, "")]
    assert fields_warmup.WORK.keys() == set(STAGES)


def test_nothing_is_compiled_after_it() -> None:
    prepare()
    loops = [marching_loops.trace, marching_loops.march, marching_loops.coarsen, volume_loops.forward,
             volume_loops.backward, volume_loops.reach, spheretracing_loops.advance, voxels_loops.touch]  # fmt: skip
    before = [len(loop.signatures) for loop in loops]
    assert min(before) >= 1
    tree = Octree.from_points(torch.rand(9, 3), 3)
    rays = Rays(torch.full((5, 3), -2.0), torch.ones(5, 3) / 3**0.5)
    tree.march(rays, step=0.1, jitter=torch.rand(5), near=torch.ones(5))
    tree.raytrace(rays, merged=True)
    assert [len(loop.signatures) for loop in loops] == before
