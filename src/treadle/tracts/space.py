"""The grid of a volume: where its voxels lie in the scanner's millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treadle.errors import UsageError


@dataclass(frozen=True, eq=False)
class Space:
    """A grid of voxels, and where it lies.

    Inside this pack points are in *voxel space with corner origin*: voxel i spans i to i + 1, its centre is at i + .5
    (TrackVis counts so; dwi_ml calls it `Space.VOX`, `Origin.TRACKVIS`). Directions are along the grid's own axes, in
    millimetres: a difference of points times `voxel_sizes`.
    """

    affine: np.ndarray
    """(4, 4) float64: from the index of a voxel, i.e. its centre, to RAS+ millimetres, as in NIfTI."""
    shape: tuple[int, int, int]
    """Voxels along each axis."""

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise UsageError("the affine of a volume is no invertible 4 x 4 matrix")
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    @property
    def voxel_sizes(self) -> np.ndarray:
        """(3,) float64: millimetres along each axis of the grid."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 3) of this space as RAS+ millimetres, float64."""
        return (np.asarray(points, np.float64) - 0.5) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def from_world(self, points: np.ndarray) -> np.ndarray:
        """RAS+ millimetres (n, 3) as points of this space, float64."""
        inverse = np.linalg.inv(self.affine[:3, :3])
        return (np.asarray(points, np.float64) - self.affine[:3, 3]) @ inverse.T + 0.5

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(n,) bool: whether points (n, 3) of this space lie in the volume."""
        return np.asarray(((points >= 0) & (points <= np.asarray(self.shape))).all(axis=1))

    def same(self, other: Space, tolerance: float = 1e-3) -> bool:
        """Whether the other grid has as many voxels at the same places, to `tolerance` millimetres."""
        corners = np.array(np.meshgrid(*((0, size) for size in self.shape))).reshape(3, -1).T
        return self.shape == other.shape and bool(
            np.abs(self.to_world(corners) - other.to_world(corners)).max() <= tolerance
        )
