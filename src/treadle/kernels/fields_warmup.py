"""Compiling what tracers and structures need before it is needed, so that the wait can be shown for what it is.

Numba compiles each loop at its first call and keeps it on disk: some ten seconds once for a machine, half a second to
load in every process after that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from treadle.kernels import marching, spheretracing, volume, voxels

STAGES = ("stretches of rays", "samples along rays", "volume rendering", "sphere tracing", "cells of meshes")
"""What is compiled, in this order."""


def prepare(progress: Callable[[int, int, str], None] | None = None, *, stages: tuple[str, ...] = STAGES) -> None:
    """Compile or load the loops for float32 CPU tensors by following one ray.

    Args:
        progress: called before each stage and once at the end with the number of finished stages, the number of all,
            and what comes next ("" at the end).
        stages: which of `STAGES` are needed.
    """
    for done, stage in enumerate(stages):
        if progress is not None:
            progress(done, len(stages), stage)
        WORK[stage]()
    if progress is not None:
        progress(len(stages), len(stages), "")


def _ray() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.tensor([[0.0, 0.0, -2.0]]), torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 2, 2, 2, dtype=torch.bool)


def _stretches() -> None:
    marching.raytrace(*_ray())


def _samples() -> None:
    marching.march(*_ray(), step=1.0)


def _volume() -> None:
    density, values = torch.ones(2, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    found = volume.composite(density, values, torch.ones(2), torch.ones(2), torch.tensor([0, 2]))
    torch.autograd.grad(found.values.sum(), (density, values))
    volume.reached(density.detach(), torch.ones(2), torch.tensor([0, 2]))


def _spheres() -> None:
    stretches = marching.raytrace(*_ray(), merged=True)
    march, alive = spheretracing.March.begin(stretches)
    spheretracing.advance(march, alive, torch.ones(1), stretches)


def _cells() -> None:
    voxels.touched(np.eye(3), np.array([[0, 1, 2]]), 1)


WORK = dict(zip(STAGES, (_stretches, _samples, _volume, _spheres, _cells), strict=True))
