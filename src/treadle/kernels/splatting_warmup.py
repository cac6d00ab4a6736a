"""Compiling everything that splatting needs before it is needed, so that the wait can be shown for what it is.

Numba compiles each loop at its first call and keeps it on disk: some fifteen seconds once for a machine, one second to
load in every process after that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from treadle.kernels import splatting, ssim

STAGES = ("projection", "colours", "tiles", "their gradients", "L1 and SSIM", "statistics")
"""What is compiled, in this order."""


def prepare(progress: Callable[[int, int, str], None] | None = None) -> None:
    """Compile or load the loops for float32 CPU tensors by rendering two splats.

    Args:
        progress: called before each stage and once at the end with the number of finished stages, the number of all,
            and what comes next ("" at the end).
    """

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, len(STAGES), STAGES[done] if done < len(STAGES) else "")

    size = (20, 20)
    means = torch.tensor([[0.0, 0.0, 2.0], [0.1, 0.0, 3.0]], requires_grad=True)
    turns = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(2, 1)
    tell(0)
    shown = torch.full((2,), 0.5)
    flat = splatting.project(means, turns, torch.full((2, 3), 0.2), shown, torch.eye(4), (20.0, 20.0, 10.0, 10.0), size)
    torch.autograd.grad(flat.centers.sum(), means, retain_graph=True)
    tell(1)
    rest = torch.zeros(2, 15, 3)
    colors = splatting.spherical_harmonics(torch.ones(2, 3), rest, means, torch.zeros(3), 3, flat.extents[:, 0] > 0)
    torch.autograd.grad(colors.sum(), means, retain_graph=True)
    tell(2)
    image, _ = splatting.rasterize(flat, shown, colors, size)
    tell(3)
    torch.autograd.grad(image.sum(), flat.centers, retain_graph=True)
    tell(4)
    l1, alike = ssim.ssim_l1(image, torch.zeros(20, 20, 3))
    torch.autograd.grad(l1 - alike, image)
    tell(5)
    splatting.contributions(flat, shown, size)
    tell(6)
