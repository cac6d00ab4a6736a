"""Gaussian splatting, differentiable: projection, spherical harmonics, rasterization, and what each splat contributes.

On a CPU, in float32 and float64, compiled loops run; everywhere else the torch reference (`splatting_reference`) does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels.splatting_reference import (
    BASES,
    Projection,
    contributions_reference,
    project_reference,
    rasterize_reference,
    spherical_harmonics_reference,
)

COMPILED_DTYPES = (torch.float32, torch.float64)

__all__ = ["Projection", "contributions", "project", "rasterize", "spherical_harmonics"]


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
    """Gaussians in space as a camera sees them: Gaussians on the picture plane.

    Args:
        means: (N, 3) centres in the world, N >= 0.
        quaternions: (N, 4) rotations (w, x, y, z), of any length above 0.
        scales: (N, 3) standard deviations along the three axes, above 0.
        opacities: (N,) in [0, 1]; they decide how large a box is, and get no gradient.
        world_to_camera: (4, 4) rotation and translation into the camera's frame: z ahead, x right, y down.
        intrinsics: fx, fy, cx, cy in pixels; pixel i is sampled at i + .5.
        size: width and height of the picture, in pixels.
        near: what is nearer is culled; above 0.
        eps2d: variance in pixels^2 that is added to every splat, so that none falls between the samples.
        antialiased: give the compensation for that, and take it into account where a box is measured.

    Returns:
        The projection, differentiable with respect to means, quaternions, scales and `world_to_camera`. A splat whose
        numbers are not finite, or whose quaternion is zero, is culled: it is not drawn, and gets no gradient.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other; `near` not above 0.
    """
    count = len(means)
    _shapes({"means": (means, (count, 3)), "quaternions": (quaternions, (count, 4)), "scales": (scales, (count, 3)),
             "opacities": (opacities, (count,)), "world_to_camera": (world_to_camera, (4, 4))})  # fmt: skip
    _size(size)
    if not near > 0:
        raise UsageError(f"splatting: near must be above 0, got {near:g}")
    cloud = means, quaternions, scales, opacities
    if _compiles(means):
        from treadle.kernels import splatting_compiled

        return splatting_compiled.project(
            cloud, world_to_camera, tuple(map(float, intrinsics)), size, (near, eps2d, float(antialiased))
        )
    camera = world_to_camera, intrinsics, size
    return project_reference(*cloud, *camera, near=near, eps2d=eps2d, antialiased=antialiased)


def spherical_harmonics(
    dc: Tensor, rest: Tensor, means: Tensor, eye: Tensor, degree: int, visible: Tensor | None = None
) -> Tensor:
    """The colours of splats seen from a point: max(0, sum of spherical harmonics + .5).

    Args:
        dc: (N, 3) coefficients of degree 0.
        rest: (N, K, 3) those above, in the order of 3DGS files; K may be more than `degree` needs.
        means: (N, 3) where the splats are.
        eye: (3,) where the camera is.
        degree: 0 to 3, the highest that is used.
        visible: (N,) bool, which are wanted; all if None.

    Returns:
        (N, 3) colours, zero where not visible; differentiable with respect to dc, rest, means and eye.

    Raises:
        UsageError: a degree that is not 0 to 3 or that `rest` has too few coefficients for; shapes, dtypes or devices
            that do not fit each other.
    """
    if degree not in range(len(BASES)):
        raise UsageError(f"splatting: spherical harmonics have a degree of 0 to {len(BASES) - 1} here, got {degree}")
    count = len(dc)
    held = rest.shape[1] if rest.dim() == 3 else 0
    _shapes({"dc": (dc, (count, 3)), "rest": (rest, (count, held, 3)), "means": (means, (count, 3)),
             "eye": (eye, (3,))})  # fmt: skip
    if held < BASES[degree] - 1:
        raise UsageError(f"splatting: degree {degree} needs {BASES[degree] - 1} coefficients above the first, "
                         f"rest has {held}")  # fmt: skip
    if visible is not None and visible.shape != (count,):
        raise UsageError(f"splatting: visible must have shape ({count},), got {tuple(visible.shape)}")
    if _compiles(dc):
        from treadle.kernels import splatting_compiled

        return splatting_compiled.spherical_harmonics(dc, rest, means, eye, degree, visible)
    return spherical_harmonics_reference(dc, rest, means, eye, degree, visible)


def rasterize(
    projection: Projection,
    opacities: Tensor,
    channels: Tensor,
    size: tuple[int, int],
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend splats from front to back.

    Splats of equal depth are blended in the order of their rows. The same splats give the same bits, forward and
    backward, on any number of threads.

    Args:
        projection: of N splats, N >= 0.
        opacities: (N,) in [0, 1], those that `projection` was made with (times its compensations where antialiased).
        channels: (N, C) what is blended: colours, depths, normals, anything; C >= 1.
        size: width and height of the picture, in pixels.
        background: (C,) what shows where splats do not cover; zero if None.

    Returns:
        image (H, W, C) and alpha (H, W), one minus the transmittance that is left; differentiable with respect to
        centers, conics, opacities, channels and background. A splat with an opacity, centre or conic that is not finite
        is not drawn; a channel that is not finite is seen in the image.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other.
    """
    _shapes(_flat_shapes(projection, opacities) | {"channels": (channels, (len(opacities), _width(channels)))})
    if background is not None:
        _shapes({"channels": (channels, tuple(channels.shape)), "background": (background, (channels.shape[1],))})
    _size(size)
    if _compiles(channels):
        from treadle.kernels import splatting_compiled

        return splatting_compiled.rasterize(projection, opacities, channels, size, background)
    return rasterize_reference(projection, opacities, channels, size, background)


def contributions(projection: Projection, opacities: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What each splat adds to the picture, and to how many of its pixels.

    Args:
        projection: of N splats, N >= 0.
        opacities: (N,) as for `rasterize`.
        size: width and height of the picture, in pixels.

    Returns:
        weights (N,): the sum over pixels of alpha times the transmittance before it; pixels (N,) int64: how many it
        adds to. No gradient.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other.
    """
    _shapes(_flat_shapes(projection, opacities))
    _size(size)
    if _compiles(opacities):
        from treadle.kernels import splatting_compiled

        return splatting_compiled.contributions(projection, opacities, size)
    return contributions_reference(projection, opacities, size)


def _compiles(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in COMPILED_DTYPES


def _flat_shapes(projection: Projection, opacities: Tensor) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
    count = len(projection.centers)
    return {
        "centers": (projection.centers, (count, 2)),
        "conics": (projection.conics, (count, 3)),
        "depths": (projection.depths, (count,)),
        "extents": (projection.extents, (count, 2)),
        "opacities": (opacities, (count,)),
    }


def _width(channels: Tensor) -> int:
    return max(channels.shape[1], 1) if channels.dim() == 2 else 1


def _shapes(named: dict[str, tuple[Tensor, tuple[int, ...]]]) -> None:
    """Each tensor has the shape beside it, and all are of the dtype and on the device of the first."""
    first_name, (first, _) = next(iter(named.items()))
    for name, (tensor, shape) in named.items():
        if tensor.shape != shape:
            raise UsageError(f"splatting: {name} must have shape {shape}, got {tuple(tensor.shape)}")
        if tensor.dtype != first.dtype or not first.is_floating_point() or tensor.device != first.device:
            raise UsageError(f"splatting: {name} is {tensor.dtype} on {tensor.device}, {first_name} {first.dtype} on "
                             f"{first.device}: all must have one floating dtype and one device")  # fmt: skip


def _size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise UsageError(f"splatting: a picture of {size[0]} x {size[1]} pixels: both must be at least 1")
