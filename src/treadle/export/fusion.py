"""From splats to a surface: their depth, as the training cameras see it, fused into a volume, and the mesh in it.

Marching cubes are scikit-image's: it is at hand with two of Treadle's extras, keeps to voxels that some camera has seen
(libigl's cannot, and would close the hull of the unseen with a wall), and comes with the SciPy that counts the parts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.export.look import SOLID, Look
from treadle.export.mesh import Mesh
from treadle.kernels import tsdf

BAND = (4.0, 40.0)
"""On either side of a surface its distance counts within 4 voxels, or a 40th of the box where that is more: depth of
splats scatters, and a band that is thinner than the scatter leaves several surfaces behind one another."""

RESOLUTIONS = range(8, 1025)

Corners = NDArray[np.float64]


def truncation(box: Corners, resolution: int) -> float:
    """How far on either side of a surface its distance counts, see `BAND`."""
    longest = float((box[1] - box[0]).max())
    return max(BAND[0] * longest / resolution, longest / BAND[1])


def fuse(look: Look, cameras: Iterable[Camera], box: Corners, resolution: int = 256) -> Mesh:
    """The surface that the cameras see in a box, coloured as they see it.

    A volume of 256 voxels in each direction takes 0.4 GB.

    Args:
        look: renders what a camera sees; a depth below 0 is one that is not known.
        cameras: from where; each is looked from once.
        box: (2, 3) lower and upper corner.
        resolution: voxels along the longest side of the box.

    Raises:
        UsageError: a box without volume, another resolution than 8 to 1024, no surface in the box, or scikit-image is
            not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise UsageError("meshes need scikit-image: pip install 'treadle[splats]'") from None
    box = np.asarray(box, np.float64)
    sides = box[1] - box[0]
    if not np.isfinite(box).all() or (sides <= 0).any():
        raise UsageError(f"a mesh needs a box with a volume, not one from {_point(box[0])} to {_point(box[1])}")
    if resolution not in RESOLUTIONS:
        raise UsageError(f"resolution is {resolution}: expected {RESOLUTIONS[0]} to {RESOLUTIONS[-1]} voxels")
    voxel = float(sides.max() / resolution)
    shape = [max(2, int(np.ceil(side / voxel))) for side in sides]
    origin = tuple((box.mean(0) - voxel * (np.array(shape) - 1) / 2).tolist())
    band = truncation(box, resolution)
    distances, weights, colors = torch.ones(*shape), torch.zeros(*shape), torch.zeros(*shape, 4)
    for camera in cameras:
        view = look(camera)
        depth = torch.where(view.alpha >= SOLID, view.depth, torch.inf).float().cpu().contiguous()
        tsdf.integrate(distances, weights, colors, origin, voxel, depth, view.image.float().cpu().contiguous(),
                       torch.from_numpy(camera.world_to_camera), camera.intrinsics, band)  # fmt: skip
    mask = _seen_cubes(weights.numpy() > 0)
    try:
        vertices, faces, _, _ = marching_cubes(  # type: ignore[no-untyped-call]
            distances.numpy(), 0.0, mask=mask, allow_degenerate=False
        )
    except (ValueError, RuntimeError):  # what scikit-image says where the distances have no sign change
        raise UsageError(f"no surface was seen from {_point(box[0])} to {_point(box[1])}: choose another box") from None
    if not len(faces):
        raise UsageError(f"no surface was seen from {_point(box[0])} to {_point(box[1])}: choose another box")
    places = np.array(origin) + voxel * vertices
    return Mesh(places.astype(np.float32), faces.astype(np.int32), _colors(colors.numpy(), vertices))


def _seen_cubes(seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cubes all of whose corners were seen, each at its upper corner: where scikit-image looks for its mask."""
    whole = np.ones(tuple(n - 1 for n in seen.shape), bool)
    for i, j, k in np.ndindex(2, 2, 2):
        whole &= seen[i : i + whole.shape[0], j : j + whole.shape[1], k : k + whole.shape[2]]
    return np.pad(whole, ((1, 0), (1, 0), (1, 0)))


def _colors(sums: NDArray[np.float32], vertices: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Between the eight voxels around each vertex, by how near they are and how often they were seen: (n, 3) uint8."""
    low = np.clip(np.floor(vertices).astype(np.int64), 0, np.array(sums.shape[:3]) - 2)
    share = vertices - low
    found = np.zeros((len(vertices), 4))
    for corner in np.ndindex(2, 2, 2):
        i, j, k = (low + corner).T
        weight = np.where(corner, share, 1 - share).prod(1)
        found += weight[:, None] * sums[i, j, k]
    means = found[:, :3] / np.maximum(found[:, 3:], 1e-12)
    return np.asarray(means.clip(0, 1) * 255 + 0.5, np.uint8)


def _point(corner: Corners) -> str:
    return ",".join(f"{x:g}" for x in corner)
