"""What cameras look at, and from how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bounds:
    """What cameras look at.

    Attributes:
        focus: (3,) the point that is closest to all their axes.
        distance: the median distance of the cameras from it.
        extent: 1.1 times the largest distance of a camera from the mean of them; 1 where all are at one place.
    """

    focus: Array
    distance: float
    extent: float

    @classmethod
    def of(cls, cameras: Sequence[Camera]) -> Bounds:
        """The bounds of a scene that these cameras see."""
        poses = np.stack([camera.camera_to_world for camera in cameras])
        centers, axes = poses[:, :3, 3], poses[:, :3, 2]
        across = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # what is left of a vector beside an axis
        spread = float(np.linalg.norm(centers - centers.mean(0), axis=1).max())
        # The touch of the identity decides where all axes are parallel: then any point along them is as close.
        ahead = centers.mean(0) + axes.mean(0) * max(spread, 1.0)
        normal = across.sum(0) + 1e-6 * np.eye(3)
        wanted = (across @ centers[:, :, None]).sum(0)[:, 0] + 1e-6 * ahead
        focus = np.linalg.solve(normal, wanted)
        distance = float(np.median(np.linalg.norm(centers - focus, axis=1)))
        return cls(focus, distance if distance > 1e-9 else 1.0, 1.1 * spread if spread > 1e-9 else 1.0)
