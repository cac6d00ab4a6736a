"""The torch reference of `tsdf`: the same sums, a view at a time over the whole volume."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """As `tsdf.integrate`, of any dtype and on any device."""
    fx, fy, cx, cy = intrinsics
    height, width = depth.shape
    axes = [o + voxel * torch.arange(n).double() for o, n in zip(origin, distances.shape, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).to(distances.device)
    pose = world_to_camera.to(points)
    x, y, far = (points @ pose[:3, :3].T + pose[:3, 3]).unbind(-1)
    column, row = fx * x / far + cx, fy * y / far + cy
    visible = (far > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    near_row = row.where(visible, torch.zeros(())).long()
    near_column = column.where(visible, torch.zeros(())).long()
    seen = depth[near_row, near_column].double()
    visible &= seen >= 0

    top, left = (row - 0.5).floor(), (column - 0.5).floor()
    whole = visible & (top >= 0) & (top < height - 1) & (left >= 0) & (left < width - 1)
    t, s = top.where(whole, torch.zeros(())).long(), left.where(whole, torch.zeros(())).long()
    corners = torch.stack([depth[t, s], depth[t, s + 1], depth[t + 1, s], depth[t + 1, s + 1]]).double()
    smooth = whole & (corners.amin(0) >= 0) & (corners.amax(0) - corners.amin(0) < truncation)
    u, v = column - 0.5 - left, row - 0.5 - top
    a, b, c, d = corners
    seen = torch.where(smooth, (a * (1 - u) + b * u) * (1 - v) + (c * (1 - u) + d * u) * v, seen)

    behind = seen - far
    visible &= behind >= -truncation
    means = (distances * weights + (behind / truncation).clamp(max=1)) / (weights + 1)
    distances[visible] = means[visible].to(distances.dtype)
    weights += visible
    near = visible & (behind < truncation)
    colors[..., :3] += torch.where(near[..., None], image[near_row, near_column], torch.zeros(()))
    colors[..., 3] += near
