"""The surface of a radiance field: where its density passes a level, by marching cubes, coloured as it is seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.export.mesh import Mesh
from treadle.fields.nerf.model import Radiance

LEVEL = 15.0
"""The density, per half side of the box, that counts as a surface where nobody says otherwise."""

_CHUNK = 1 << 17
_MOST = 1024


@torch.no_grad()
def surface(model: Radiance, box: NDArray[np.float64], resolution: int, level: float = LEVEL) -> Mesh:
    """The surface within a box (2, 3) of the model's coordinates; where the box cuts it, it is closed.

    Args:
        model: whose.
        box: its lower and its upper corner.
        resolution: voxels along the longest side.
        level: the density at the surface, per unit of the model's coordinates.

    Raises:
        UsageError: a resolution out of range, or no density within the box reaches the level.
    """
    from skimage.measure import marching_cubes

    if not 8 <= resolution <= _MOST:
        raise UsageError(f"--resolution {resolution}: expected 8 to {_MOST}")
    low, high = box
    voxel = float((high - low).max()) / resolution
    counts = np.maximum(np.ceil((high - low) / voxel).astype(int) + 1, 2)
    values = np.zeros(counts + 2, np.float32)  # a shell of nothing closes it
    values[1:-1, 1:-1, 1:-1] = densities(model, low, voxel, counts)
    if not values.max() > level:
        raise UsageError(f"no density in the box reaches {level:g}, where the surface is to be: the largest is "
                         f"{values.max():g}; choose another --crop, or a smaller --density")  # fmt: skip
    corners, faces, normals, _ = marching_cubes(values, level, gradient_direction="ascent")
    vertices = low + (corners - 1) * voxel
    colors = seen_colors(model, torch.from_numpy(vertices).float(), torch.from_numpy(normals.copy()).float())
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32), colors)


def densities(
    model: Radiance, low: NDArray[np.float64], voxel: float, counts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The density at the corners of voxels, `counts` along each axis from `low` on; 0 where space is known as empty."""
    x, y, z = (torch.from_numpy(low[k] + voxel * np.arange(counts[k])).float() for k in range(3))
    device = model.to_input.device
    values = torch.zeros(tuple(counts.tolist()))
    flat, across = values.view(-1), len(y) * len(z)
    plane = torch.stack(torch.meshgrid(y, z, indexing="ij"), -1).reshape(-1, 2)
    slabs = max(1, _CHUNK // across)
    for start in range(0, len(x), slabs):
        part = x[start : start + slabs]
        points = torch.cat([part.repeat_interleave(across)[:, None], plane.repeat(len(part), 1)], 1).to(device)
        # Half a voxel around an occupied cell counts too: else the surface would be cut along the cells.
        kept = torch.nonzero(_near(model, points, voxel))[:, 0]
        found = model.field.density(points.index_select(0, kept)) if len(kept) else points.new_zeros(0)
        flat[start * across : start * across + len(points)].index_copy_(0, kept.cpu(), found.cpu())
    return values.numpy()


def _near(model: Radiance, points: Tensor, reach: float) -> Tensor:
    """Which points (n, 3) lie within `reach`, along each axis, of an occupied cell's corner."""
    found = model.occupancy.occupied(points)
    for corner in range(8):
        shift = points.new_tensor([reach if corner & bit else -reach for bit in (1, 2, 4)])
        found = found | model.occupancy.occupied(points + shift)
    return found


@torch.no_grad()
def seen_colors(model: Radiance, points: Tensor, normals: Tensor) -> NDArray[np.uint8]:
    """(n, 3) uint8: the colours at `points` (n, 3), looked at against their `normals`, (n, 3) of unit length."""
    device = model.to_input.device
    parts = [
        model.field(places.to(device), -out.to(device), ("color",))["color"].cpu()
        for places, out in zip(points.split(_CHUNK), normals.split(_CHUNK), strict=True)
    ]
    return torch.cat(parts).mul(255).round().to(torch.uint8).numpy()
