"""Fusing depth pictures into a volume of truncated signed distances (Curless and Levoy, 1996), with colours.

A voxel's distance is the mean, over the views that see it, of how far the seen surface lies behind its centre along the
camera's axis, in units of the truncation and at most 1; voxels farther behind the surface than that are not seen. Each
voxel is its own sum over the views in their order: the number of threads changes nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from treadle.kernels import threads


def integrate(
    distances: Tensor,
    weights: Tensor,
    colors: Tensor,
    origin: tuple[float, float, float],
    voxel: float,
    depth: Tensor,
    image: Tensor,
    world_to_camera: Tensor,
    intrinsics: tuple[float, float, float, float],
    truncation: float,
) -> None:
    """Add one view to a volume, in place; all tensors float32 on the CPU, contiguous.

    Args:
        distances: (x, y, z) means so far, from -1 (behind the surface) to 1; whatever where there is no weight.
        weights: (x, y, z) how many views have seen each voxel.
        colors: (x, y, z, 4) sums of colours near the surface, and how many there were.
        origin: the centre of the first voxel.
        voxel: the distance between centres.
        depth: (H, W) distance along the camera's axis; infinite where nothing is, negative where it is not known.
        image: (H, W, 3) colours.
        world_to_camera: (4, 4) float64.
        intrinsics: fx, fy, cx, cy in pixels.
        truncation: the distance that counts as 1.
    """
    for name, tensor in {"distances": distances, "weights": weights, "colors": colors, "depth": depth,
                         "image": image}.items():  # fmt: skip
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(f"{name} has to be contiguous float32 on the CPU")
    if weights.shape != distances.shape or colors.shape != (*distances.shape, 4) or image.shape != (*depth.shape, 3):
        raise ValueError("the shapes of the volume's tensors, or of depth and image, do not fit each other")
    arguments = [tensor.numpy() for tensor in (distances, weights, colors)]
    pose = world_to_camera.double().numpy()
    place = torch.tensor([*origin, voxel, truncation, *intrinsics], dtype=torch.float64).numpy()
    parts = threads.parts_for(distances.shape[0])
    threads.launch(_kernel(), parts, *arguments, depth.numpy(), image.numpy(), pose, place)


@lru_cache
def _kernel() -> Any:
    """Compiled at the first call, and kept on disk: importing this module costs nothing."""
    from treadle.kernels.tsdf_loops import integrate as compiled

    return compiled
