"""gsplat's CUDA kernels behind the interface of `treadle.kernels.splatting` (`pip install 'treadle[splats-cuda]'`).

Written against gsplat 1.5.3 (Apache-2.0, https://github.com/nerfstudio-project/gsplat), with the cuts that 3DGS has:
`near` .2 and .3 pixels^2 of blur. gsplat lets a splat hide up to .999 of what is behind it, ours up to .99.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels.splatting import Projection

TILE = 16


def project(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    *,
    near: float = 0.2,
    eps2d: float = 0.3,
    antialiased: bool = False,
) -> Projection:
    """As `treadle.kernels.splatting.project`; what is culled has an extent of 0, its other numbers mean nothing."""
    fx, fy, cx, cy = intrinsics
    lens = means.new_tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    extents, centers, depths, conics, compensations = _gsplat().fully_fused_projection(
        means,
        None,
        quaternions,
        scales,
        world_to_camera[None],
        lens[None],
        *size,
        eps2d=eps2d,
        near_plane=near,
        calc_compensations=antialiased,
        opacities=opacities.detach(),
    )
    full = compensations[0] if antialiased else torch.ones_like(depths[0])
    return Projection(centers[0], conics[0], depths[0], full, extents[0].to(means.dtype))


def spherical_harmonics(
    dc: Tensor, rest: Tensor, means: Tensor, eye: Tensor, degree: int, visible: Tensor | None = None
) -> Tensor:
    """As `treadle.kernels.splatting.spherical_harmonics`."""
    coefficients = torch.cat([dc[:, None], rest], 1)
    sums = _gsplat().spherical_harmonics(degree, means - eye, coefficients, masks=visible)
    colors = (sums + 0.5).clamp(min=0)
    return colors if visible is None else torch.where(visible[:, None], colors, 0.0)


def rasterize(
    projection: Projection,
    opacities: Tensor,
    channels: Tensor,
    size: tuple[int, int],
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `treadle.kernels.splatting.rasterize`."""
    gsplat, (width, height) = _gsplat(), size
    across, down = -(-width // TILE), -(-height // TILE)
    extents = projection.extents.int()[None]
    _, keys, order = gsplat.isect_tiles(projection.centers[None], extents, projection.depths[None], TILE, across, down)
    offsets = gsplat.isect_offset_encode(keys, 1, across, down).reshape(1, down, across)
    image, alpha = gsplat.rasterize_to_pixels(
        projection.centers[None],
        projection.conics[None],
        channels[None],
        opacities[None],
        width,
        height,
        TILE,
        offsets,
        order,
        backgrounds=None if background is None else background[None],
    )
    return image[0], alpha[0, ..., 0]


def _gsplat() -> Any:
    try:
        import gsplat
    except ImportError:
        raise UsageError(
            "splats on CUDA need gsplat: install it with: pip install 'treadle[splats-cuda]', or give device=cpu"
        ) from None
    return gsplat
