"""The pinhole camera, and the conventions that every reader brings its file's cameras to.

A camera looks along its z axis, x points right and y down (as OpenCV and COLMAP have it); `world_to_camera` takes a
point of the world into that frame. Pixel (column i, row j) covers the square from (i, j) to (i + 1, j + 1) and is
sampled at its centre, (i + .5, j + .5), as COLMAP and gsplat have it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError


@dataclass(frozen=True, eq=False)
class Camera:
    """Where a picture was taken from, and how: a pinhole without distortion.

    Attributes:
        width, height: of the picture, in pixels.
        fx, fy: focal lengths, in pixels.
        cx, cy: the principal point, in pixels from the upper left corner of the upper left pixel.
        world_to_camera: (4, 4) float64, a rotation and a translation.
        name: of the picture.

    Raises:
        UsageError: a size or a focal length that is not positive, or a pose that is no rigid motion.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    world_to_camera: NDArray[np.float64]
    name: str = ""

    def __post_init__(self) -> None:
        pose = np.asarray(self.world_to_camera, np.float64)
        object.__setattr__(self, "world_to_camera", pose)
        who = f"camera {self.name!r}" if self.name else "a camera"
        if self.width < 1 or self.height < 1:
            raise UsageError(f"{who} has a picture of {self.width} x {self.height} pixels: both must be at least 1")
        numbers = np.array([self.fx, self.fy, self.cx, self.cy])
        if not np.isfinite(numbers).all() or min(self.fx, self.fy) <= 0:
            raise UsageError(f"{who} has focal lengths {self.fx:g}, {self.fy:g} and principal point {self.cx:g}, "
                             f"{self.cy:g}: expected finite numbers, and focal lengths above 0")  # fmt: skip
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise UsageError(f"{who} has a pose that is no 4 x 4 matrix of finite numbers")
        rotation = pose[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-4 or np.linalg.det(rotation) < 0:
            raise UsageError(f"{who} has a pose whose rotation is none: its axes are not orthonormal and right-handed")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.width, self.height

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """fx, fy, cx and cy, in pixels."""
        return self.fx, self.fy, self.cx, self.cy

    @property
    def camera_to_world(self) -> NDArray[np.float64]:
        """(4, 4) float64: the inverse of `world_to_camera`, whose last column is where the camera stands."""
        rotation, translation = self.world_to_camera[:3, :3], self.world_to_camera[:3, 3]
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ translation
        return pose

    @property
    def center(self) -> NDArray[np.float64]:
        """(3,) float64: where the camera stands in the world."""
        return np.asarray(self.camera_to_world[:3, 3])

    def resized(self, width: int, height: int) -> Camera:
        """The same camera with a picture of another size: each axis is scaled by what its size really changes by."""
        x, y = width / self.width, height / self.height
        return replace(self, width=width, height=height, fx=self.fx * x, fy=self.fy * y, cx=self.cx * x, cy=self.cy * y)
