"""Splatting in plain torch: the definition the compiled loops are held to, and what runs on other devices and dtypes.

Projection and blending as in Zwicker et al., "EWA splatting" (2002), with the cuts of Kerbl et al., "3D Gaussian
splatting" (2023), and of gsplat (Apache-2.0): a splat nearer than `near`, or that reaches an alpha of 1/255 at no
pixel, is culled; an alpha is at most .99, and one below 1/255 is skipped; a pixel ends before its transmittance falls
to 1e-4.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 16
"""Width and height of a tile, in pixels."""
LEAST_ALPHA = 1 / 255
"""What adds less to a pixel is skipped."""
MOST_ALPHA = 0.99
"""No splat hides more of what lies behind it."""
LEAST_TRANSMITTANCE = 1e-4
"""A pixel through which no more would be seen is finished."""
WIDEST = 3.33
"""The box of a splat reaches at most so many standard deviations; sqrt(2 ln 255) = 3.329 is where alpha is 1/255."""
MARGIN = 0.3
"""The slope of the projection is held within the picture and this share of half its size around it."""
BASES = (1, 4, 9, 16)
"""How many spherical harmonics there are up to each degree."""


class Projection(NamedTuple):
    """Splats on the picture plane, one row each; all zero where a splat is culled.

    Attributes:
        centers: (N, 2) in pixels; differentiable. Their gradient is what densification looks at (`retain_grad`).
        conics: (N, 3) the inverse of the 2D covariance: xx, xy, yy, in 1 / pixels^2; differentiable.
        depths: (N,) z in the camera's frame; differentiable.
        compensations: (N,) sqrt(det Sigma / det Sigma2) in [0, 1], what the filter of `eps2d` pixels^2 makes a splat
            too opaque by; ones where it is not asked for; differentiable.
        extents: (N, 2) half-widths in pixels of the box in which alpha can reach 1/255; no gradient.
    """

    centers: Tensor
    conics: Tensor
    depths: Tensor
    compensations: Tensor
    extents: Tensor


def rotations(quaternions: Tensor) -> Tensor:
    """(N, 3, 3) rotation matrices of (N, 4) quaternions (w, x, y, z) of any length above 0."""
    w, x, y, z = (quaternions / quaternions.norm(dim=1, keepdim=True)).unbind(1)
    rows = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def project_reference(
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
    """`treadle.kernels.splatting.project` with differentiable torch operations."""
    with torch.no_grad():
        flat = _project_all(means, quaternions, scales, world_to_camera, intrinsics, size, eps2d)
        extents = _extents(flat, opacities, size, near, antialiased)
        seen = extents[:, 0].gt(0).nonzero()[:, 0]
    # Only what is seen is differentiated: nothing that is culled, whatever its numbers, gets or gives a gradient.
    flat = _project_all(means[seen], quaternions[seen], scales[seen], world_to_camera, intrinsics, size, eps2d)
    conics = torch.stack((flat.yy, -flat.xy, flat.xx), dim=1) / flat.det[:, None]

    def whole(values: Tensor) -> Tensor:
        return values.new_zeros(len(means), *values.shape[1:]).index_put((seen,), values)

    compensations = whole(flat.compensations()) if antialiased else torch.ones_like(extents[:, 0])
    return Projection(whole(flat.centers), whole(conics), whole(flat.depths), compensations, extents)


class _Flat(NamedTuple):
    """Gaussians on the picture plane before anything is culled; `det0` is the determinant before the filter."""

    centers: Tensor
    depths: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor
    det: Tensor
    det0: Tensor

    def compensations(self) -> Tensor:
        return (self.det0 / self.det).sqrt()


def _project_all(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    world_to_camera: Tensor,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    eps2d: float,
) -> _Flat:
    fx, fy, cx, cy = intrinsics
    rotation = world_to_camera[:3, :3]
    x, y, z = (means @ rotation.T + world_to_camera[:3, 3]).unbind(1)
    centers = torch.stack((fx * x / z + cx, fy * y / z + cy), dim=1)
    u = _within(x / z, fx, cx, size[0])
    v = _within(y / z, fy, cy, size[1])
    zero = torch.zeros_like(z)
    rows = (fx / z, zero, -fx * u / z), (zero, fy / z, -fy * v / z)
    jacobian = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    # Sigma2 = M M^T, and its determinant is the sum of the squared minors of M: in float32 the usual difference of
    # products would leave nothing of a needle's.
    m = jacobian @ rotation @ rotations(quaternions) * scales[:, None, :]
    a, b = m.unbind(1)
    det0 = torch.linalg.cross(a, b).square().sum(dim=1)
    xx, xy, yy = (a * a).sum(dim=1), (a * b).sum(dim=1), (b * b).sum(dim=1)
    det = det0 + eps2d * (xx + yy) + eps2d**2
    return _Flat(centers, z, xx + eps2d, xy, yy + eps2d, det, det0)


def _within(slope: Tensor, focal: float, center: float, pixels: int) -> Tensor:
    margin = MARGIN * 0.5 * pixels / focal
    return slope.clamp(-center / focal - margin, (pixels - center) / focal + margin)


def _extents(flat: _Flat, opacities: Tensor, size: tuple[int, int], near: float, antialiased: bool) -> Tensor:
    if antialiased:
        opacities = opacities * flat.compensations()
    reach = (2 * (opacities / LEAST_ALPHA).log()).sqrt().clamp(max=WIDEST)
    extents = torch.stack((reach * flat.xx.sqrt(), reach * flat.yy.sqrt()), dim=1)
    low, high = pixel_box(flat.centers, extents, size)
    # Written so that NaN is culled.
    finite = (flat.det > 0) & flat.det.isfinite() & flat.depths.isfinite()
    kept = (flat.depths >= near) & (opacities >= LEAST_ALPHA) & finite & (low <= high).all(dim=1)
    return torch.where(kept[:, None], extents, 0.0)


def pixel_box(centers: Tensor, extents: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The first and the last column and row (N, 2) whose samples, at i + .5, lie in the boxes; none if first > last."""
    last = torch.tensor(size, device=centers.device) - 1
    low = (centers - extents - 0.5).ceil().nan_to_num(1.0).clamp(min=0)
    high = (centers + extents - 0.5).floor().nan_to_num(-1.0)
    return low, torch.minimum(high, last.to(high.dtype))


def spherical_harmonics_reference(
    dc: Tensor, rest: Tensor, means: Tensor, eye: Tensor, degree: int, visible: Tensor | None = None
) -> Tensor:
    """`treadle.kernels.splatting.spherical_harmonics` with differentiable torch operations."""
    seen = torch.arange(len(dc), device=dc.device) if visible is None else visible.nonzero()[:, 0]
    dc, rest, offsets = dc[seen], rest[seen], means[seen] - eye
    apart = offsets.norm(dim=1, keepdim=True) != 0
    bases = harmonics(torch.where(apart, offsets, 0) / torch.where(apart, offsets, 1).norm(dim=1, keepdim=True), degree)
    sums = bases[:, :1] * dc + torch.einsum("nk,nkc->nc", bases[:, 1:], rest[:, : BASES[degree] - 1])
    colors = (sums + 0.5).clamp(min=0)
    count = len(means)
    return colors.new_zeros(count, 3).index_put((seen,), colors)


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """(N, (degree + 1)^2) real spherical harmonics of unit vectors (N, 3), in the order and signs of 3DGS files."""
    x, y, z = directions.unbind(1)
    values = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        values += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            *(1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * zz - xx - yy)),
            *(-1.0925484305920792 * x * z, 0.5462742152960396 * (xx - yy)),
        ]
    if degree >= 3:
        values += [
            *(-0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z),
            *(-0.4570457994644658 * y * (4 * zz - xx - yy), 0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy)),
            *(-0.4570457994644658 * x * (4 * zz - xx - yy), 1.445305721320277 * z * (xx - yy)),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(values, dim=1)


def rasterize_reference(
    projection: Projection,
    opacities: Tensor,
    channels: Tensor,
    size: tuple[int, int],
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`treadle.kernels.splatting.rasterize` with differentiable torch operations, tile by tile, each at once."""
    width, height = size
    order, boxes = _front_to_back(projection, size)
    centers, conics = projection.centers[order], projection.conics[order]
    opacities, channels = opacities[order], channels[order]
    bands, covers = [], []
    for y in range(0, height, TILE):
        band = _touching(boxes, 1, y)
        tiles, alphas = [], []
        for x in range(0, width, TILE):
            here = band[_touching([box[band] for box in boxes], 0, x)]
            shape = min(TILE, height - y), min(TILE, width - x)
            weights = _weights(centers[here], conics[here], opacities[here], x, y, shape)
            tiles.append((weights @ channels[here]).view(*shape, -1))
            alphas.append(weights.sum(dim=1).view(shape))
        bands.append(torch.cat(tiles, dim=1))
        covers.append(torch.cat(alphas, dim=1))
    image, alpha = torch.cat(bands), torch.cat(covers)
    if background is not None:
        image = image + (1 - alpha)[..., None] * background
    return image, alpha


def contributions_reference(projection: Projection, opacities: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`treadle.kernels.splatting.contributions` with torch operations."""
    width, height = size
    order, boxes = _front_to_back(projection, size)
    centers, conics = projection.centers.detach()[order], projection.conics.detach()[order]
    sorted_opacities = opacities.detach()[order]
    sums = torch.zeros_like(opacities, requires_grad=False)
    counts = torch.zeros(len(opacities), dtype=torch.int64, device=opacities.device)
    for y in range(0, height, TILE):
        band = _touching(boxes, 1, y)
        for x in range(0, width, TILE):
            here = band[_touching([box[band] for box in boxes], 0, x)]
            shape = min(TILE, height - y), min(TILE, width - x)
            weights = _weights(centers[here], conics[here], sorted_opacities[here], x, y, shape)
            sums[order[here]] += weights.sum(dim=0)
            counts[order[here]] += weights.gt(0).sum(dim=0)
    return sums, counts


def _front_to_back(projection: Projection, size: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
    """The visible splats by depth, equal ones by index, and their boxes in pixels: low, high (N, 2)."""
    seen = projection.extents[:, 0].gt(0).nonzero()[:, 0]
    order = seen[projection.depths.detach()[seen].argsort(stable=True)]
    return order, list(pixel_box(projection.centers.detach()[order], projection.extents[order], size))


def _touching(boxes: list[Tensor], axis: int, start: int) -> Tensor:
    low, high = boxes
    return ((low[:, axis] < start + TILE) & (high[:, axis] >= start)).nonzero()[:, 0]


def _weights(centers: Tensor, conics: Tensor, opacities: Tensor, x: int, y: int, shape: tuple[int, int]) -> Tensor:
    """(pixels, n): how much each of n splats, front to back, adds to each pixel of a tile."""
    columns = torch.arange(x, x + shape[1], dtype=centers.dtype, device=centers.device)
    rows = torch.arange(y, y + shape[0], dtype=centers.dtype, device=centers.device)
    dx = (columns + 0.5)[:, None] - centers[:, 0]
    dy = (rows + 0.5)[:, None] - centers[:, 1]
    along = 0.5 * conics[:, 0] * dx * dx + (0.5 * conics[:, 2] * dy * dy)[:, None]
    power = -(along + (conics[:, 1] * dy)[:, None] * dx).flatten(0, 1)
    alpha = (opacities * power.exp()).clamp(max=MOST_ALPHA)
    alpha = torch.where((alpha >= LEAST_ALPHA) & (power <= 0), alpha, 0.0)
    # Transmittances as sums of logarithms: those are differentiated a fifth quicker than products.
    fading = (-alpha).log1p()
    after = fading.cumsum(dim=1)
    return torch.where(after > math.log(LEAST_TRANSMITTANCE), alpha * (after - fading).exp(), 0.0)
