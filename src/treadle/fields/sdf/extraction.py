"""The surface where a field is zero, as a mesh: marching cubes, evaluated only where the surface can be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.fields.sdf.field import SDFField

RESOLUTIONS = range(8, 1025)

BLOCK = 8
"""Voxels along the side of a block: between the corners of those that are far from the surface nothing is asked."""

_MARGIN = 1.5
"""How many times the farthest that a corner of a block can be from a surface in it, its distance may be wrong by."""


def extract(field: SDFField, resolution: int = 256) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The zero surface of a field in [-1, 1]^3: vertices (n, 3) and faces (m, 3), counterclockwise seen from outside.

    Args:
        field: asked with gradients off, near the surface alone.
        resolution: voxels along each side of the box, 8 to 1024. 256 asks some 2 million points; memory is taken for
            all of the box, .07 GB at 256 and 4.3 GB at 1024.

    Raises:
        UsageError: another resolution, no surface in the box, or scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise UsageError("meshes need scikit-image: pip install 'treadle[fields]'") from None
    if resolution not in RESOLUTIONS:
        raise UsageError(f"resolution is {resolution}: expected {RESOLUTIONS[0]} to {RESOLUTIONS[-1]} voxels")
    values = sampled(field.evaluate, resolution)
    if not values.min() < 0 < values.max():
        raise UsageError("the field has no surface: it is nowhere zero; train it for longer")
    # Nothing reaches the walls of the box: what is inside there would leave the mesh open.
    for axis in range(3):
        for side in (0, -1):
            wall = values.swapaxes(0, axis)[side]
            np.maximum(wall, 1e-6, out=wall)
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="descent")
    places = vertices.astype(np.float64) * (2 / resolution) - 1
    return _clean(places, faces.astype(np.int64))


def sampled(distance: Callable[[Tensor], Tensor], resolution: int) -> NDArray[np.float32]:
    """(n, n, n) distances at the corners of voxels, n = resolution + 1; far from the surface those of a corner nearby.

    Blocks of voxels are looked into where a corner of theirs is as near to the surface as it is to their own inside.
    """
    blocks = -(-resolution // BLOCK)
    ticks = torch.arange(blocks * BLOCK + 1) * (2 / resolution) - 1
    coarse = distance(_lattice(ticks[::BLOCK], ticks[::BLOCK], ticks[::BLOCK])).reshape(3 * (blocks + 1,)).cpu()
    corners = torch.stack([coarse[i : i + blocks, j : j + blocks, k : k + blocks]
                           for i in (0, 1) for j in (0, 1) for k in (0, 1)])  # fmt: skip
    reach = _MARGIN * 0.5 * 3**0.5 * BLOCK * 2 / resolution
    near = (corners.abs().amin(0) < reach) | ((corners < 0).any(0) & (corners > 0).any(0))
    found = corners[0].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    values = torch.nn.functional.pad(found[None, None], (0, 1, 0, 1, 0, 1), mode="replicate")[0, 0].numpy()
    offsets = torch.arange(BLOCK + 1)
    side = (BLOCK + 1) ** 3
    for part in near.nonzero().split(max(1, (1 << 20) // side)):
        rows = [(part[:, axis, None] * BLOCK + offsets) for axis in range(3)]
        axes = [ticks[row] for row in rows]
        n = len(part)
        points = torch.stack(
            [
                axes[0][:, :, None, None].expand(n, BLOCK + 1, BLOCK + 1, BLOCK + 1),
                axes[1][:, None, :, None].expand(n, BLOCK + 1, BLOCK + 1, BLOCK + 1),
                axes[2][:, None, None, :].expand(n, BLOCK + 1, BLOCK + 1, BLOCK + 1),
            ],
            -1,
        ).reshape(-1, 3)
        block = distance(points).reshape(n, BLOCK + 1, BLOCK + 1, BLOCK + 1).cpu().numpy()
        x, y, z = (row.numpy() for row in rows)
        values[x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]] = block
    whole = resolution + 1
    return np.ascontiguousarray(values[:whole, :whole, :whole])


def _lattice(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(x, y, z, indexing="ij"), -1).reshape(-1, 3)


def _clean(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Without faces that have no area: where the surface meets a corner of a voxel, vertices fall together."""
    _, index, number = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    merged = index[number.reshape(-1)][faces]
    kept = (merged != np.roll(merged, 1, 1)).all(1)
    used, compact = np.unique(merged[kept], return_inverse=True)
    return vertices[used], compact.reshape(-1, 3).astype(np.int64)
